#!/usr/bin/env python3
"""What a step should take on a GPU that nobody has measured yet.

    bench_gpu --count --json FILE && predict.py FILE

Reads the FLOPs and bytes that every family of operations asks for in one step (bench_gpu --count runs
it on the backend that computes nothing) and divides: matrix products by 720 TFLOP/s, attention by the
rate of cuDNN's kernels at sequence 1024 (forward and backward together), everything by 2.6 TB/s, the
slower of the two counting. These ceilings are published and estimated figures of one H100 SXM; what
the model leaves out is launches, the gaps between kernels and the loss of narrow products. A figure it
prints is a prediction, never a measurement.
"""

import json
import sys

PRODUCT = 720e12  # FLOPs a second, bf16, large
COPY = 2.6e12  # bytes a second, read and written
# FLOPs a second of causal attention by head size: 410 forward and 300 backward at 128, and about two
# thirds of that at 64.
ATTENTION = {128: 325e12, 64: 210e12}
HEAD = {"shape-qwen2.5-0.5b": 64, "llama-1b": 64}


def step_seconds(case):
    total, parts = 0.0, {}
    for name, family in case["families"].items():
        rate = PRODUCT
        if name == "attention":
            rate = ATTENTION[HEAD.get(case["model"], 128)]
        elif name not in ("matmul", "loss"):
            rate = float("inf")  # bytes decide
        seconds = max(family["flops"] / rate, family["bytes"] / COPY)
        parts[name] = seconds
        total += seconds
    return total, parts


def main():
    with open(sys.argv[1]) as file:
        cases = json.load(file)["cases"]
    full = {}
    print("| case | ms a step | tokens/s | share of 720 TFLOP/s | Grass / full | plan, GiB | largest families |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for case in cases:
        if case["state"] != "counted":
            print("| %s | %s: %s |" % (case["case"], case["state"], case.get("why", "")))
            continue
        seconds, parts = step_seconds(case)
        tokens = case["rows"] * case["accumulate"] * case["sequence"]
        kind, _, size = case["case"].partition("-")
        if kind == "full":
            full[size] = tokens / seconds
        ratio = "%.2f" % (tokens / seconds / full[size]) if kind == "grass" and size in full else ""
        largest = sorted(parts, key=parts.get, reverse=True)[:4]
        print("| %s | %.1f | %.0f | %.0f %% | %s | %.2f | %s |" % (
            case["case"], 1e3 * seconds, tokens / seconds,
            100 * case["step_flops"] / seconds / PRODUCT, ratio, case["plan_bytes"] / 2**30,
            ", ".join("%s %.0f %%" % (n, 100 * parts[n] / seconds) for n in largest)))


if __name__ == "__main__":
    main()
