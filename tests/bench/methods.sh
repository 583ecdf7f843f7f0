#!/bin/sh
# Every method at equal tokens and at equal time with its bytes, as Markdown for RESULTS.md.
#
#   methods.sh WINDROW [MINUTES [FOLDER]]
#
# Trains the recipe `showdown` with each method, one after the other, in about MINUTES (default 60):
# a few steps are timed first, and the steps of all runs chosen from that. Grass stands at 1/16, 1/8,
# 1/4 and 1/2 of the rows in its three modes: fast (the paper's: other rows rest), balanced (they move
# without state every fourth step) and quality (at every step). FOLDER keeps the runs: the same words
# go on where a run was broken off and train nothing twice. Further words for all runs, such as
# data.train=FILE, go into SETTINGS; figures are worth something on a quiet machine only.
set -eu
windrow=$1
minutes=${2:-60}
folder=${3:-}
temporary=
if [ -z "$folder" ]; then
    temporary=$(mktemp -d)
    folder=$temporary/runs
    trap 'rm -rf "$temporary"' EXIT
fi
mkdir -p "$folder"
settings=${SETTINGS:-}

methods="full full-bf16 full-int8 sgd tradam:optimizer.lr=0.01 recompute-block wta-crs"
for rank in 96 48 24 12; do # of a hidden size of 192
    for mode in grass grass-balanced grass-quality; do
        methods="$methods $mode:method.rank=$rank:optimizer.lr=0.004"
    done
done
methods="$methods grass-int8:method.rank=48:optimizer.lr=0.004"
methods="$methods galore:method.rank=48:optimizer.lr=0.01 galore-int8:method.rank=48:optimizer.lr=0.01"
methods="$methods lora:optimizer.lr=0.003"
count=$(echo "$methods" | wc -w)

# Steps of all runs; kept, so that a second start asks for the same ones.
if [ ! -s "$folder/steps" ]; then
    trial=$(mktemp -d)
    began=$(date +%s%N)
    # shellcheck disable=SC2086
    "$windrow" train showdown train.steps=20 train.save_every=0 --run-dir "$trial/run" $settings \
        >/dev/null 2>&1
    ended=$(date +%s%N)
    rm -rf "$trial"
    # Evaluations and methods that are slower than full training: a quarter more.
    awk -v ns=$((ended - began)) -v minutes="$minutes" -v count="$count" 'BEGIN {
        steps = int(minutes * 60 / count / (ns * 1e-9 / 20 * 1.25))
        print steps < 10 ? 10 : steps
    }' >"$folder/steps"
fi
steps=$(cat "$folder/steps")
every=$((steps / 10 > 0 ? steps / 10 : 1))
list=$(echo "$methods" | tr ' ' ',')
echo "$count runs of $steps steps" >&2

echo "\`tests/bench/methods.sh build/windrow $minutes\`: $count runs of $steps steps of the recipe" \
    "\`showdown\`${settings:+ with $settings}, load $(cut -d' ' -f1-3 /proc/loadavg) on $(nproc) cores."
echo
# shellcheck disable=SC2086
"$windrow" compare showdown --methods "$list" --to "$folder/runs" --json \
    train.steps="$steps" train.eval_every="$every" schedule.warmup=$((every < 20 ? every : 20)) \
    $settings >"$folder/comparison.json" || [ -s "$folder/comparison.json" ]

python3 - "$folder/comparison.json" <<'PYTHON'
import json
import sys

runs = json.load(open(sys.argv[1]))["runs"]
full = next((r for r in runs if r["run"] == "full"), None)


def cell(value, form):
    return "-" if value is None else form % value


def mib(value):
    return cell(None if value is None else value / 2**20, "%.1f")


print("| method | loss, equal tokens | loss, equal time | perplexity | tokens/s | peak, MiB | gradients |"
      " optimizer | activations | checkpoint |")
print("|---|" + "---:|" * 9)
for r in runs:
    print("| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |" % (
        r["run"], cell(r.get("loss_equal_tokens"), "%.4f"), cell(r.get("loss_equal_time"), "%.4f"),
        cell(r.get("perplexity"), "%.3f"), cell(r.get("tokens_per_second"), "%.0f"),
        mib(r.get("peak_bytes")), mib(r.get("gradients_bytes")), mib(r.get("optimizer_bytes")),
        mib(r.get("activations_bytes")), mib(r.get("checkpoint_bytes"))))
print()
if full is None or full.get("perplexity") is None:
    print("Full training was not evaluated, so nothing is compared with it.")
    sys.exit(0)
held = lambda r: r["gradients_bytes"] + r["optimizer_bytes"]
close = [r for r in runs if r is not full and r.get("perplexity") is not None
         and r["perplexity"] <= full["perplexity"] + 0.1 and r["peak_bytes"] < full["peak_bytes"]]
print("Within 0.1 perplexity of full (%.3f), with less memory:" % full["perplexity"])
print()
for r in sorted(close, key=lambda r: r["peak_bytes"]):
    print("- %s: %.3f, %.2f times less in all, %.2f times less for gradients and states" % (
        r["run"], r["perplexity"], full["peak_bytes"] / r["peak_bytes"], held(full) / max(1, held(r))))
if not close:
    print("- none")
better = [r["run"] for r in runs if r is not full and (r.get("loss_equal_time") or 1e9) <
          (full.get("loss_equal_time") or 1e9)]
print()
print("Lower loss than full after the same time: %s." % (", ".join(better) or "none, full wins"))
PYTHON
