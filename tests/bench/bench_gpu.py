#!/usr/bin/env python3
"""How fast PyTorch trains the shapes of bench_gpu: transformers' LLaMA with fused AdamW, eager and
compiled, and LoRA of peft.

    bench_gpu.py [--device cuda|cpu] [--json FILE] [--seconds N] [--rounds N] [--tiny]
                 [--ours PROGRAM] [CASE ...]

Random weights and tokens, sequence 1024, 32768 tokens a step (--tiny: a small model, 32 tokens), bf16
weights and states, attention by scaled_dot_product_attention, in the largest micro-batch of 16, 8, 4,
2, 1 rows that fits. A round times every case of one model once, and with --ours PROGRAM (bench_gpu)
also ours, in turns; the median over the rounds is told. When --seconds have passed, the rest is
skipped and named. Exit 77, with a last line that says why, if PyTorch, transformers or the device are
not there; without peft only LoRA is left out.
"""

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

SHAPES = {  # hidden, feed forward, layers, heads, key-value heads, vocabulary, tied
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
    "1.5b": (1536, 8960, 28, 12, 2, 151936, True),
    "0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "3b": (2048, 11008, 36, 16, 2, 151936, True),
}
TINY = (64, 160, 2, 4, 2, 512, False)
KINDS = ("eager", "compiled", "lora")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def leave(why):
    print(why)
    sys.exit(77)


try:
    import torch
except ImportError:
    leave("PyTorch is not there")
try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError:
    leave("transformers is not there")
try:
    import peft
except Exception:  # peft fails in many ways beside versions it does not know
    peft = None


def make_model(size, kind, args):
    if kind == "compiled" and not hasattr(torch, "compile"):
        raise RuntimeError("this PyTorch has no torch.compile")
    hidden, feed, layers, heads, kv_heads, vocabulary, tied = TINY if args.tiny else SHAPES[size]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=feed, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocabulary,
        max_position_embeddings=4096, tie_word_embeddings=tied, use_cache=False,
        rms_norm_eps=1e-6)
    torch.set_default_dtype(torch.bfloat16)
    try:
        # PyTorch 1 builds on the host first.
        place = torch.device(args.device)
        with place if hasattr(place, "__enter__") else contextlib.nullcontext():
            try:
                config._attn_implementation = "sdpa"
                model = LlamaForCausalLM(config)
            except (ImportError, ValueError):  # versions without it
                config._attn_implementation = "eager"
                model = LlamaForCausalLM(config)
        model.to(place)
    finally:
        torch.set_default_dtype(torch.float32)
    if kind == "lora":
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    options = {"lr": 1e-4, "weight_decay": 0.01}
    if args.device == "cuda":
        options["fused"] = True
    optimizer = torch.optim.AdamW(trained, **options)
    return torch.compile(model) if kind == "compiled" else model, optimizer, vocabulary


def wait(args):
    if args.device == "cuda":
        torch.cuda.synchronize()


def one_step(model, optimizer, ids, accumulate, args):
    """Milliseconds of a step; loss in bf16 logits as transformers has it."""
    wait(args)
    began = time.monotonic()
    for i in range(accumulate):
        loss = model(input_ids=ids[i], labels=ids[i]).loss / accumulate
        loss.backward()
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    wait(args)
    return 1e3 * (time.monotonic() - began)


def out_of_memory(error):
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error)


def clean(args):
    gc.collect()
    if hasattr(torch, "_dynamo"):
        torch._dynamo.reset()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_case(size, kind, rows, args):
    """(rows, accumulate, step ms, peak bytes) of the largest micro-batch that fits."""
    sequence, tokens = (16, 32) if args.tiny else (1024, 32768)
    while rows:
        clean(args)
        model = optimizer = ids = None
        try:
            accumulate = tokens // (rows * sequence)
            model, optimizer, vocabulary = make_model(size, kind, args)
            ids = torch.randint(0, vocabulary, (accumulate, rows, sequence), device=args.device)
            steps = [one_step(model, optimizer, ids, accumulate, args) for _ in range(2 + args.steps)]
            peak = torch.cuda.max_memory_allocated() if args.device == "cuda" else None
            return rows, accumulate, statistics.median(steps[2:]), peak
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            rows //= 2
        finally:
            del model, optimizer, ids
    raise MemoryError("no micro-batch fits")


def time_ours(case, args):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ours.json")
        command = [args.ours, "--device", args.device, "--json", path, case]
        if args.tiny:
            command.insert(1, "--tiny")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(path) as file:
            found = json.load(file)["cases"][0]
    if found["state"] != "done":
        raise MemoryError(found.get("why", found["state"]))
    return found["rows"], found["accumulate"], found["step_ms"], found.get("device_peak_bytes")


def one_round(size, entries, deadline, args):
    kinds = (["full", "grass"] if args.ours else []) + [k for k in KINDS if k != "lora" or peft]
    for kind in kinds:
        name = f"{kind}-{size}"
        if args.cases and name not in args.cases:
            continue
        entry = entries.setdefault(name, {"case": name, "step_ms": [], "state": "skipped",
                                          "why": "no time was left", "rows": 2 if args.tiny else 16})
        if entry["state"] == "failed" or time.monotonic() > deadline:
            continue
        try:
            if kind in ("full", "grass"):
                rows, accumulate, ms, peak = time_ours(name, args)
            else:
                rows, accumulate, ms, peak = time_case(size, kind, entry["rows"], args)
            entry["step_ms"].append(ms)
            entry.update(rows=rows, accumulate=accumulate, peak_bytes=peak, state="done", why="")
        except Exception as error:  # one case that fails does not end the others
            entry.update(state="failed", why=str(error).strip().split("\n")[0][:200])


def tell(entries, tokens):
    for entry in entries.values():
        if entry["step_ms"]:
            entry["median_ms"] = statistics.median(entry["step_ms"])
            entry["tokens_per_second"] = 1e3 * tokens / entry["median_ms"]
            peak = entry["peak_bytes"]
            print("%-16s %9.1f ms  %8.0f tok/s  %d x %d rows%s" % (
                entry["case"], entry["median_ms"], entry["tokens_per_second"],
                entry["accumulate"], entry["rows"],
                "  peak %.2f GiB" % (peak / 2**30) if peak else ""))
        else:
            print("%-16s %s: %s" % (entry["case"], entry["state"], entry["why"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--ours")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        leave("PyTorch finds no CUDA device")
    torch.manual_seed(1)
    deadline = time.monotonic() + args.seconds
    entries = {}
    for size in ["tiny"] if args.tiny and not args.ours else SHAPES:
        for _ in range(args.rounds):
            one_round(size, entries, deadline, args)
    tell(entries, 32 if args.tiny else 32768)
    if not peft:
        print("peft is not there: no LoRA")
    if args.json:
        with open(args.json, "w") as file:
            import transformers
            json.dump({"torch": torch.__version__, "transformers": transformers.__version__,
                       "peft": getattr(peft, "__version__", None),
                       "cases": list(entries.values())}, file, indent=1)
            file.write("\n")
    done = [e for e in entries.values() if e["state"] == "done"]
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
