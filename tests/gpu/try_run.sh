#!/bin/sh
# Runs tests/gpu/run on the emulated device: every branch after the check for a device, and that a
# stage that fails is told and hides no other.
#
#   try_run.sh SOURCE PROGRAM BENCH NCCL      the folder of a library that stands in for NCCL
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
fail() {
    echo "$1"
    bad=1
}

# A sanitizer that only notes how it was called, operations that are quickly done.
mkdir "$work/bin"
cat >"$work/bin/compute-sanitizer" <<'END'
#!/bin/sh
echo "$*" >>"$(dirname "$0")/called"
[ "$2" != racecheck ]
END
cat >"$work/bin/ops" <<'END'
#!/bin/sh
echo '{"device": "emulated", "operations": [
  {"operation": "add", "dtype": "fp32", "cases": 1, "worst_of_bound": 0.01, "repeats": true, "good": true, "exact": true, "error_fp32": 2.5e-08, "error_bf16": null},
  {"operation": "rope", "dtype": "bf16", "cases": 1, "worst_of_bound": 2e-1, "repeats": true, "good": true, "exact": true, "error_fp32": 1e-07, "error_bf16": 2.000e-03, "cpu_error_bf16": 9}]}' >"$1"
END
cat >"$work/bin/none" <<'END'
#!/bin/sh
exit 77
END
chmod +x "$work/bin/"*
export PATH="$work/bin:$PATH" PYTHON=no-such-python OMP_WAIT_POLICY=passive

LD_LIBRARY_PATH=$4 sh "$1/tests/gpu/run" --quick --program "$2" --ops "$work/bin/ops" --bench "$3" \
    "$work/out.json" >"$work/log" 2>&1
[ $? -eq 1 ] || fail "a failing sanitizer does not show in the exit code"
for line in 'every operation against cpu *good, worst rope bf16 at 2e-1 of the bound' \
    'largest errors against fp64 *good, fp32 1e-07 (rope), bf16 2.000e-03 (rope)' \
    'ten steps of stories-full, fp32, against cpu *good' \
    'ten steps of stories-full, fp32, over NCCL *good' \
    'ten steps of stories-full, fp32, repeat *good' 'ten steps of stories, bf16, repeat *good' \
    'ten steps of stories, bf16, against cpu *good' 'compute-sanitizer memcheck *good' \
    'compute-sanitizer racecheck *FAILED' 'compute-sanitizer initcheck *good' '^speed *good' \
    '^full-7b .*tok/s' '^grass-33b-in-80gb .*tok/s' 'PyTorch *not there'; do
    grep -q "$line" "$work/log" || fail "the table has no line $line"
done
python=$(command -v python3) && { "$python" -m json.tool "$work/out.json" >/dev/null ||
    fail "the JSON is broken"; }
grep -q '"worst_of_bound"' "$work/out.json" || fail "the JSON has no operations"
grep -q '"ten steps of stories, bf16, repeat": "good"' "$work/out.json" ||
    fail "the JSON has no checks"
grep -q '"product_flops_per_second"' "$work/out.json" || fail "the JSON has no speed"

# Everything fails but the last lines come.
sh "$1/tests/gpu/run" --quick --program "$work/bin/none" --ops "$work/bin/ops" \
    --bench "$work/bin/none" "$work/out.json" >"$work/log2" 2>&1
[ $? -eq 1 ] || fail "a program that fails does not show in the exit code"
[ "$(grep -c 'FAILED, did not run' "$work/log2")" = 3 ] || fail "all trainings should have failed"
grep -q '^speed *FAILED' "$work/log2" || fail "a failing benchmark is not told"
grep -q 'written to' "$work/log2" || fail "the script did not come to its end"

# NCCL that has to be used and cannot be is an error, not a run without it.
export WINDROW_PRESETS="$1/presets" XDG_STATE_HOME="$work/state"
few="stories-full device=cuda model.preset=llama-micro data.sequence_length=8 batch.micro=1 train.steps=1
    train.export=false train.save_every=0 train.eval_every=0 train.sample_every=0"
# shellcheck disable=SC2086
LD_LIBRARY_PATH=$(dirname "$4")/old WINDROW_NCCL=always "$2" train $few --run-dir "$work/old" \
    >"$work/log3" 2>&1
[ $? -eq 1 ] || fail "a run goes on without the NCCL that it has to use"
grep -q 'NCCL cannot be used: rank 0: NCCL has no ncclGetLastError' "$work/log3" ||
    fail "$(tail -n 5 "$work/log3")"
# shellcheck disable=SC2086
LD_LIBRARY_PATH=$4 WINDROW_NCCL=always FAKE_NCCL=error-at=9 "$2" train $few --run-dir "$work/lost" \
    >"$work/log3" 2>&1
[ $? -eq 1 ] || fail "a run goes on after an error of NCCL"
grep -q 'all-reduce of .* did not come about: NCCL: remote process' "$work/log3" ||
    fail "$(tail -n 5 "$work/log3")"

sh "$1/tests/gpu/run" --quick --program "$2" --ops "$work/bin/none" "$work/out.json" >/dev/null 2>&1
[ $? -eq 77 ] || fail "no device is not told by 77"
[ $bad -eq 0 ] || cat "$work/log" "$work/log2"
exit $bad
