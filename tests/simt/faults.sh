#!/bin/sh
# Faults of the emulated device: what does not fit is refused before the first step, a device that
# fails ends the run with the operation and the tensor named and the last checkpoint whole, and one
# that computes wrongly is not used.
#
#   faults.sh PROGRAM PRESETS FAKE
set -u
program=$1
fake=$3/whole
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" XDG_CACHE_HOME="$work/cache" XDG_CONFIG_HOME="$work/config"
export WINDROW_PRESETS="$2"
unset KERNELS_SYNC SIMT_FEEDS
bad=0

# A model that takes a step in no time, and its data.
mkdir -p "$work/config/windrow/presets/models"
cat >"$work/config/windrow/presets/models/least.json" <<'END'
{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
  "num_key_value_heads": 1, "vocab_size": 1024, "max_position_embeddings": 128,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "initializer_range": 0.2,
  "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
  "bos_token_id": 1, "eos_token_id": 2
}
END
yes "Once upon a time there was a little boy who had a red ball and a dog." | head -200 >"$work/data"

# train NAME WORDS ...: the code is $code, what was said is in NAME.said, the run in NAME.
train() {
    name=$1
    shift
    "$program" train stories-full --run-dir "$work/$name" model.preset=least data.train="$work/data" \
        data.validation=0 data.sequence_length=8 batch.micro=1 train.steps=4 train.save_every=2 \
        train.sample_every=0 train.export=false schedule.warmup=0 "$@" >"$work/$name.said" 2>&1
    code=$?
}

# expect NAME CODE WORDS: the exit code, and words that must have been said.
expect() {
    [ "$code" = "$2" ] || { echo "$1: exit code $code, not $2"; tail -3 "$work/$1.said"; bad=1; }
    grep -qF -- "$3" "$work/$1.said" && return
    echo "$1: was not said: $3"
    tail -3 "$work/$1.said"
    bad=1
}
told() { # told NAME WORDS: in the events
    grep -qF -- "$2" "$work/$1/events.jsonl" && return
    echo "$1: not in the events: $2"
    grep -E '"event":"(start|error|stop)"' "$work/$1/events.jsonl" | cut -c1-400
    bad=1
}
losses() {
    grep '"event":"step"' "$work/$1/events.jsonl" |
        sed 's/.*"step":\([0-9]*\).*"loss":\([^,]*\),"grad_norm":\([^,]*\),.*/\1 \2 \3/'
}
same() { # same A B: losses, norms and every tensor of the last checkpoint
    losses "$1" >"$work/a"
    losses "$2" >"$work/b"
    [ "$(wc -l <"$work/a")" = 4 ] && cmp -s "$work/a" "$work/b" || {
        echo "$2: other losses than $1"
        bad=1
    }
    for file in model.safetensors state.safetensors; do
        cmp "$work/$1/checkpoints/step-000004/$file" "$work/$2/checkpoints/step-000004/$file" ||
            bad=1
    done
}

# nvml WORDS ...: the command with a driver's library that tells of the emulated device's memory
nvml() {
    LD_LIBRARY_PATH="$fake" FAKE_NVML=emulated
    export LD_LIBRARY_PATH FAKE_NVML
    "$@"
    unset LD_LIBRARY_PATH FAKE_NVML
}
number() { # number EVENT KEY FILE: of the last such event
    grep "\"event\":\"$1\"" "$3" | tail -1 | sed "s/.*\"$2\":\([0-9]*\).*/\1/"
}

# ---- a run, and what the device holds beside its plan ----
export SIMT_OTHERS=1000000
nvml train whole device=cuda
expect whole 0 "done after step 4"
told whole '"device_total_bytes":2147483648,"context_bytes":25165824,"others_bytes":1000000'
events="$work/whole/events.jsonl"
used=$(number memory device_used_bytes "$events")
planned=$(number plan total_bytes "$events")
[ "$((used - planned))" = "$((25165824 + 1000000))" ] || {
    echo "whole: $used bytes in use, $planned planned: the gap is not the context and the others"
    bad=1
}
unset SIMT_OTHERS

# ---- no room ----
large="model.preset=llama-60m data.sequence_length=128 batch.micro=8"
export SIMT_MEMORY=1500000000 SIMT_OTHERS=700000000
nvml train unfit device=cuda $large
expect unfit 4 "MiB free of 1430.5 MiB; other programs and the driver hold 667.6 MiB, CUDA's context and libraries 24.0 MiB; the largest part is "
expect unfit 4 "the largest preset that fits is "
[ ! -e "$work/unfit" ] || { echo "unfit: a run was made"; bad=1; }
command=$(sed -n 's/.*preset that fits is [^:]*: windrow train \([^;]*\).*/\1/p' "$work/unfit.said")
said=$(sed -n 's/.*preset that fits is [^(]*(\([0-9]*\).*/\1/p' "$work/unfit.said")
eval "\"$program\" plan $command --json" >"$work/plan" 2>&1
total=$(sed -n 's/.*"total_bytes": *\([0-9]*\).*/\1/p' "$work/plan" | head -1)
[ "$((${total:-0} / 1048576))" = "${said:-none}" ] && [ "$total" -lt 707000000 ] || {
    echo "unfit: what is suggested takes ${total:-?} bytes, $said MiB were said: $command"
    bad=1
}
train alone device=cuda $large
expect alone 4 "other programs, the driver and CUDA's context and libraries hold "
unset SIMT_MEMORY SIMT_OTHERS

SIMT_OTHERS=2090000000 train full device=cuda
expect full 4 "emulated device, sm_80 has 30.8 MiB free of 2048.0 MiB"
# The workspace is larger than what products take alone, which the check of the device takes too.
SIMT_PIECE=67110000 train pieces device=cuda
expect pieces 4 "does not fit: the plan takes 64.2 MiB"

# ---- a device that fails in a step ----

SIMT_FAIL_LAUNCH=200 train launch device=cuda
expect launch 1 "on cuda:0: unspecified launch failure"
grep -qE 'error: step [34]: emulated device, sm_80: [a-z_]+, writing [a-z_]+ .[a-z_. 0-9]+. \([0-9, ]+\) fp32 on cuda:0: unspecified launch failure$' \
    "$work/launch.said" || { echo "launch: no operation and tensor"; bad=1; }
expect launch 1 "the checkpoint of step 2 is whole: windrow train --resume launch goes on from it"
told launch '"event":"error"'
told launch '"reason":"failed","status":1'

SIMT_FAIL_RUN=420 train later device=cuda
expect later 1 "on cuda:0: an illegal memory access was encountered; asked for since the last wait: from zero, writing 'loss' to adamw, writing 'model.layers.0.mlp.down_proj.weight'"
expect later 1 "with KERNELS_SYNC=1 in the environment, slower, it names the operation that fails"

for name in launch later; do
    "$program" train --resume "$work/$name" >"$work/$name.said" 2>&1
    code=$?
    expect $name 0 "done after step 4"
    same whole $name
done

KERNELS_SYNC=1 SIMT_FAIL_RUN=150 train named device=cuda
expect named 1 "fp32 on cuda:0: an illegal memory access was encountered"

# Where a save reads from a device that fails, nothing is saved.
SIMT_FAIL_RUN=300 train saving device=cuda
expect saving 1 "error: checkpoint after step 2"

# ---- a device that computes wrongly ----
SIMT_BREAK=matmul train wrong device=cuda
expect wrong 1 "device=cuda cannot be used: its matrix product in fp32 is 0.05 away from the processor's"
SIMT_BREAK=matmul train other device=auto train.steps=1
expect other 0 "the GPU is left alone, training on the processor: its matrix product in fp32 is 0.05 away"
[ "$(grep -c 'the GPU is left alone' "$work/other.said")" = 1 ] || bad=1

exit $bad
