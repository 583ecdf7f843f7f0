#!/bin/sh
# Telemetry of a run on the emulated device, whose bus id is that of the fake driver's second device.
#
#   telemetry.sh PROGRAM PRESETS FAKE
set -u
program=$1
fake=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" WINDROW_PRESETS="$2"
bad=0

# train NAME LIBRARY WORDS [RANKS]: a short run with that driver; its events go to NAME.
train() {
    LD_LIBRARY_PATH="$fake/$2" FAKE_NVML="$3" "$program" train stories --json \
        --run-dir "$work/run-$1" --gpus "${4:-1}" device=cuda:0 train.steps=3 train.export=false train.save_every=0 \
        train.eval_every=0 train.sample_every=0 model.preset=llama-micro data.sequence_length=24 \
        batch.micro=2 method.rank=8 >"$work/$1" 2>"$work/$1.err" || {
        echo "$1: the run failed"
        tail -5 "$work/$1.err"
        bad=1
    }
}

# expect NAME EVENT PATTERN / refuse NAME EVENT PATTERN: of the last such event.
expect() {
    grep "\"event\":\"$2\"" "$work/$1" | tail -1 | grep -q "$3" && return
    echo "$1: no $3 in the $2 event:"
    grep "\"event\":\"$2\"" "$work/$1" | tail -1
    bad=1
}
refuse() {
    grep "\"event\":\"$2\"" "$work/$1" | grep -q "$3" || return
    echo "$1: $3 in a $2 event"
    bad=1
}

train good whole ""
for word in '"gpu_util":97' '"power_w":412.5' '"temperature_c":61' '"clock_mhz":1980' \
    '"device_used_bytes":5368709120' '"device_total_bytes":85899345920' '"host_bytes":[1-9]'; do
    expect good telemetry "$word"
done
expect good memory '"device_used_bytes":5368709120'
refuse good warning NVML

train lost whole "lost=0"
expect lost warning 'lost the device'
refuse lost telemetry '"gpu_util"'
expect lost stop '"reason":"done"'

train broken broken ""
expect broken warning 'nvmlDeviceGetHandleByPciBusId_v2'
expect broken telemetry '"host_bytes":[1-9]'
expect broken stop '"reason":"done"'

# Two ranks that share the device, and exchange through the host: the device tells how long it stood.
export WINDROW_NCCL=off OMP_NUM_THREADS=1
train ranks whole "" 2
each='"device":"[^"]*","local_rank":[01],"step_ms":[0-9.]*,"compute_ms":[0-9.]*,"wait_ms":[0-9.]*,'
each="$each.*\"device_used_bytes\":5368709120,\"device_total_bytes\":85899345920,.*\"gpu_util\":97"
expect ranks ranks "\"slowest\":[01],.*\"rank\":0,.*$each.*\"rank\":1,.*$each"
expect ranks step '"exchange_ms":[0-9]'
unset WINDROW_NCCL OMP_NUM_THREADS

LD_LIBRARY_PATH="$fake/whole" FAKE_NVML="" "$program" doctor --json >"$work/doctor" 2>&1
for word in '"driver": *"580.65.06"' '"Fake GPU 17"' '"00000000:65:00.0"' \
    '"compute_capability": *"9.0"' '"memory_bytes": *85899345920'; do
    grep -q "$word" "$work/doctor" || {
        echo "doctor does not tell $word"
        bad=1
    }
done
LD_LIBRARY_PATH="$fake/whole" "$program" doctor 2>&1 | grep -q '^nvidia driver *580.65.06' || {
    echo "doctor does not tell the driver"
    bad=1
}
exit $bad
