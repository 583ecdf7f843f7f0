#!/bin/sh
# Trains a few steps on the emulated device and on the processor: the losses must agree.
#
#   train.sh PROGRAM PRESETS
set -u
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" WINDROW_PRESETS="$2"
bad=0

# train NAME RECIPE key=value ...: the losses go to NAME.loss
train() {
    name=$1
    recipe=$2
    shift 2
    "$program" train "$recipe" --run-dir "$work/$name" --json train.export=false \
        train.save_every=0 train.eval_every=0 train.sample_every=0 train.steps=3 \
        model.preset=llama-micro data.sequence_length=24 batch.micro=2 method.rank=8 \
        method.interval=2 schedule.warmup=0 "$@" >"$work/$name.json" 2>"$work/$name.err" || {
        tail -5 "$work/$name.err"
        return 1
    }
    sed -n 's/^{"event":"step",.*"loss":\([^,]*\),.*/\1/p' "$work/$name.json" >"$work/$name.loss"
}

compare() { # compare RECIPE TYPE BOUND
    train "cpu-$1-$2" "$1" device=cpu "precision.weights=$2" &&
        train "cuda-$1-$2" "$1" device=cuda "precision.weights=$2" &&
        paste "$work/cpu-$1-$2.loss" "$work/cuda-$1-$2.loss" |
        awk -v what="$1 $2" -v bound="$3" '
            { d = $1 - $2; d = d < 0 ? -d : d; most = d > most ? d : most }
            END { print what ": " NR " steps, losses at most " most + 0 " apart"
                  exit !(NR == 3 && most <= bound) }' || bad=1
}

compare stories-full bf16 0.01
compare stories fp32 0.00002
exit $bad
