#!/usr/bin/env python3
"""The papers' headline figures beside ours, in bytes from the plan: a table for RESULTS.md.

    headlines.py WINDROW

Every figure comes from `windrow plan RECIPE words --json`; the words stand below the table. Nothing
is trained.
"""

import json
import os
import subprocess
import sys
import tempfile

BF16 = "precision.weights=bf16 precision.rounding=stochastic"
ONE_ROW = "batch.micro=1 data.sequence_length=256"
SEVEN = "model.preset=llama-7b %s %s" % (BF16, ONE_ROW)
ONE = "model.preset=llama-1b %s %s" % (BF16, ONE_ROW)
WIDE = "model.preset=WIDE %s batch.micro=16 data.sequence_length=1024 optimizer.name=sgd" % BF16
# T5-Large has 24 + 24 blocks of width 1024; a LLaMA of that width and of 24, as they trained: 100
# rows of 128 tokens in fp32.
CRS = "model.preset=llama-350m data.sequence_length=128 batch.micro=%d"


class Planner:
    def __init__(self, windrow, wide):
        self.windrow, self.wide, self.said = windrow, wide, []

    def plan(self, words):
        if words not in self.said:
            self.said.append(words)
        return self.quiet(words)

    def quiet(self, words):
        done = subprocess.run([self.windrow, "plan"] + words.replace("WIDE", self.wide).split() +
                              ["--json"], stdout=subprocess.PIPE, universal_newlines=True)
        if done.returncode not in (0, 4):
            sys.exit("windrow plan %s failed" % words)
        return json.loads(done.stdout)


def optimizer(plan):
    return plan["planned_bytes"]["optimizer"]


def activations(plan):
    return plan["planned_bytes"]["activations"]


def less(ours, theirs):
    return "%.1f %%" % (100 * (1 - ours / theirs))


def largest_rows(planner, words, limit):
    """The largest batch.micro that fits, by halving."""
    low, high = 1, 4096
    while high - low > 1:
        middle = (low + high) // 2
        fits = planner.quiet(words % middle)["total_bytes"] <= limit
        low, high = (middle, high) if fits else (low, middle)
    return low


def main():
    with tempfile.TemporaryDirectory() as folder:
        wide = os.path.join(folder, "wide.json")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
                  "hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 4,
                  "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 32000,
                  "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                  "initializer_range": 0.02, "tie_word_embeddings": False}
        with open(wide, "w") as file:
            json.dump(config, file)
        table(Planner(sys.argv[1], wide))


def table(p):
    rows = []
    full = p.plan("full %s optimizer.state=bf16" % SEVEN)
    galore = p.plan("galore %s method.rank=1024 optimizer.state=bf16" % SEVEN)
    galore8 = p.plan("galore-int8 %s method.rank=1024" % SEVEN)
    rows.append(("GaLore, optimizer state (7B, rank 1024)", "65.5 %",
                 less(optimizer(galore), optimizer(full))))
    rows.append(("8-bit GaLore, optimizer state (7B)", "82.5 %",
                 less(optimizer(galore8), optimizer(full))))
    rows.append(("8-bit GaLore, all memory (7B, 256 tokens)", "63.3 %",
                 less(galore8["total_bytes"], full["total_bytes"])))
    rows.append(("8-bit GaLore, GB (7B, 256 tokens)", "22.0",
                 "%.1f" % (galore8["total_bytes"] / 1e9)))
    keep = p.plan("full " + WIDE)
    ssd = p.plan("full %s activation.offload=ssd" % WIDE)
    rows.append(("SSDTrain, activation peak (4 blocks of 8192, 16 x 1024 tokens)", "47 %",
                 less(activations(ssd), activations(keep))))
    deep = "full model.preset=llama-7b %s batch.micro=16 data.sequence_length=1024" % BF16
    rows.append(("the same, 7B of 32 blocks", "",
                 less(activations(p.plan(deep + " activation.offload=ssd")),
                      activations(p.plan(deep)))))
    dense = p.plan("full " + CRS % 100)
    sampled = p.plan("wta-crs " + CRS % 100)
    exact = p.plan("recompute-block " + CRS % 100)
    rows.append(("WTA-CRS, peak (100 x 128 tokens, width 1024)", "2.7 x",
                 "%.2f x" % (dense["total_bytes"] / sampled["total_bytes"])))
    rows.append(("recompute=block in its place, exact", "",
                 "%.2f x" % (dense["total_bytes"] / exact["total_bytes"])))
    rows.append(("WTA-CRS, rows in the same bytes", "6.4 x", "%.2f x" % (
        largest_rows(p, "wta-crs " + CRS, dense["total_bytes"]) / 100)))
    rows.append(("recompute=block in its place, exact", "", "%.2f x" % (
        largest_rows(p, "recompute-block " + CRS, dense["total_bytes"]) / 100)))
    full = p.plan("full %s optimizer.state=bf16" % ONE)
    for rank in (512, 128):
        grass = p.plan("grass %s method.rank=%d optimizer.state=bf16" % (ONE, rank))
        rows.append(("Grass, all memory (1B, rank %d, 256 tokens)" % rank, "2.5 x",
                     "%.2f x" % (full["total_bytes"] / grass["total_bytes"])))
    print("| figure | paper | ours |\n|---|---:|---:|")
    for row in rows:
        print("| %s | %s | %s |" % row)
    print("\nThe plans (`WIDE` is a file that the script writes: 4 blocks of 8192):\n")
    for words in p.said:
        print("    windrow plan %s --json" % words)


if __name__ == "__main__":
    main()
