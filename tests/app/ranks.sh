#!/bin/sh
# Runs of several ranks over MPI: the same losses as of one, saving and resuming with another number
# of ranks, and what happens when a rank is lost or different.
#
#   ranks.sh WINDROW PRESETS     exit 77: there is no mpirun, or no module for MPI
set -u
windrow=$1
export WINDROW_PRESETS=$2
command -v mpirun >/dev/null 2>&1 || exit 77
[ -f "$(dirname "$windrow")/lib/windrow_mpi.so" ] || exit 77
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# What Open MPI never frees is not ours.
export ASAN_OPTIONS="detect_leaks=0"
count=0
bad() {
    echo "FAILED: $*"
    [ -f "$work/said" ] && tail -n 20 "$work/said"
    exit 1
}
good() {
    count=$((count + 1))
    echo "ok $count: $*"
}
words="stories device=cpu model.init=random data.sequence_length=32 train.eval_every=0
    train.sample_every=0 batch.accumulate=1 method.interval=3 train.save_every=4"
losses() { # losses RUN: one a step
    sed -n 's/.*"event":"step".*"step":\([0-9]*\),.*"loss":\([-+.e0-9]*\).*/\1 \2/p' \
        "$1/events.jsonl"
}
same() { # same RUN RUN FIRST: losses from step FIRST on agree within 1e-5
    losses "$1" >"$work/a"
    losses "$2" >"$work/b"
    awk -v first="$3" 'NR == FNR { loss[$1] = $2; next }
        $1 >= first { seen++; d = $2 - loss[$1]; if (d < 0) d = -d
            if (!($1 in loss) || d > 1e-5 * loss[$1]) { print "step", $1, loss[$1], $2; exit 1 } }
        END { if (seen == 0) exit 1 }' "$work/a" "$work/b"
}

# shellcheck disable=SC2086
"$windrow" train $words batch.micro=4 train.steps=8 --run-dir "$work/one" >"$work/said" 2>&1 ||
    bad "one rank"
# shellcheck disable=SC2086
"$windrow" train $words batch.micro=2 train.steps=8 --gpus 2 --run-dir "$work/two" \
    >"$work/said" 2>&1 || bad "two ranks"
[ "$(grep -c "^step " "$work/said")" -le 8 ] || bad "more than rank 0 prints"
[ "$(losses "$work/two" | wc -l)" = 8 ] || bad "two ranks wrote other than 8 steps"
same "$work/one" "$work/two" 1 || bad "two ranks differ from one"
"$windrow" show "$work/two" >"$work/said" 2>&1
grep -q "^ranks  *2, .* exchanged a step" "$work/said" || bad "show does not tell the ranks"
grep -q "^  *2 ranks, slowest [01] .* behind the mean, exchange [0-9]*% of a step" "$work/said" ||
    bad "show does not say who is slowest"
[ "$(grep -c "^ [ *] [01]  .* ms .* MiB " "$work/said")" = 2 ] || bad "show has no table of ranks"
"$windrow" show --json "$work/two" >"$work/said" 2>&1
grep -q '"slowest_rank":[[:space:]]*[01],' "$work/said" || bad "show --json has no slowest rank"
[ "$(grep -c '"compute_ms":' "$work/said")" = 2 ] || bad "show --json does not tell both ranks"
"$windrow" show "$work/one" >"$work/said" 2>&1
grep -q "^RANK\|^ranks" "$work/said" && bad "show tells of ranks where there is one"
grep '"event":"ranks"' "$work/two/events.jsonl" | tail -n 1 >"$work/said"
grep -q '"step":8,.*"slowest":[01],.*"rank":0,"host":".*"compute_ms":[0-9].*"rank":1,.*"wait_ms":[0-9]' \
    "$work/said" || bad "no event tells how the ranks fare"
grep -q '"event":"ranks"' "$work/one/events.jsonl" && bad "a single rank tells of ranks"
good "two ranks have the losses of one"

# shellcheck disable=SC2086
mpirun --oversubscribe -np 4 "$windrow" train $words batch.micro=1 train.steps=4 \
    --run-dir "$work/four" >"$work/said" 2>&1 || bad "four ranks"
mpirun --oversubscribe -np 2 "$windrow" train --resume "$work/four" train.steps=8 batch.micro=2 \
    --accept-change batch.micro >"$work/said" 2>&1 || bad "resuming a run of four ranks with two"
same "$work/one" "$work/four" 1 || bad "four ranks and then two differ from one"
good "a run of four ranks goes on with two"

# Optimizer states are split over the ranks, and saved whole: two go on with those of four, one with
# those of two, which a signal ended.
# shellcheck disable=SC2086
"$windrow" train $words method.name=full batch.micro=4 train.steps=12 --run-dir "$work/whole" \
    >"$work/said" 2>&1 || bad "full training on one rank"
# shellcheck disable=SC2086
mpirun --oversubscribe -np 4 "$windrow" train $words method.name=full batch.micro=1 train.steps=4 \
    --run-dir "$work/split" >"$work/said" 2>&1 || bad "full training on four ranks"
"$windrow" train --resume "$work/split" train.steps=100000 batch.micro=2 \
    --accept-change batch.micro --gpus 2 >"$work/said" 2>&1 &
job=$!
waited=0
until grep -q '"event":"step".*"step":7,' "$work/split/events.jsonl" 2>/dev/null; do
    sleep 0.2
    waited=$((waited + 1))
    [ $waited -lt 600 ] || bad "two ranks did not go on"
done
kill -INT $job
wait $job
grep -q "interrupted, the state is saved" "$work/said" ||
    bad "a run of two ranks that is interrupted does not say so"
step=$(basename "$(readlink -f "$work/split/latest")" | sed 's/step-0*//')
[ "$step" -ge 7 ] || bad "an interrupted run of two ranks was not saved"
"$windrow" train --resume "$work/split" train.steps=$((step + 2)) batch.micro=4 \
    --accept-change batch.micro >"$work/said" 2>&1 || bad "one rank does not go on with split states"
same "$work/split" "$work/whole" 1 || bad "split states change the losses"
good "states of four ranks, then two, then one"

# Ranks that are given other words: the same name stands for another file.
cat >"$work/differ" <<'END'
#!/bin/sh
[ "$OMPI_COMM_WORLD_RANK" = 1 ] && cd "$2"
exec "$1" train stories device=cpu model.init=random data.train=text.txt train.steps=2 \
    tokenizer.path="$3" batch.micro=1 data.sequence_length=16 --run-dir "$4"
END
chmod +x "$work/differ"
mkdir "$work/other"
yes "A text that is here." | head -n 500 >"$work/text.txt"
yes "A text that is there." | head -n 500 >"$work/other/text.txt"
(cd "$work" && mpirun --oversubscribe -np 2 "$work/differ" "$windrow" "$work/other" \
    "$WINDROW_PRESETS/tokenizers/stories.model" "$work/refused") >"$work/said" 2>&1 &&
    bad "ranks with other data were taken"
grep -q "rank 1 was started with another recipe than rank 0: data.train" "$work/said" ||
    bad "no sentence about the recipe"
[ ! -e "$work/refused/events.jsonl" ] || bad "a refused run was begun"
good "ranks that differ are refused"

# begin NAME: a long run of two ranks; returns when it has a checkpoint. `victim` is rank 1.
begin() {
    # shellcheck disable=SC2086
    "$windrow" train $words batch.micro=2 train.steps=100000 --gpus 2 --run-dir "$work/$1" \
        >"$work/said" 2>&1 &
    job=$!
    waited=0
    until grep -q '"event":"checkpoint"' "$work/$1/events.jsonl" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        [ $waited -lt 600 ] || bad "no checkpoint came"
    done
    victim=$(pgrep -f "windrow train .*$work/$1" | while read -r pid; do
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -q '^OMPI_COMM_WORLD_RANK=1$' &&
            echo "$pid"
    done | head -n 1)
    [ -n "$victim" ] || bad "rank 1 was not found"
    began=$(date +%s)
}
# ended SECONDS NAME SENTENCE: the run has ended badly by then, and said why.
ended() {
    wait $job && bad "$2: it ended well"
    took=$(($(date +%s) - began))
    [ $took -le "$1" ] || bad "$2: it took $took seconds"
    pgrep -f "windrow train .*$work/$2" >/dev/null && bad "$2: a rank is left behind"
    grep -q "$3" "$work/said" || bad "$2: no such sentence: $3"
}

# A rank that is killed ends all of them; the run goes on from its checkpoint.
begin killed
kill -9 "$victim"
ended 10 killed "rank 1 on [^ ]* is gone; it came to this last: "
step=$(basename "$(readlink -f "$work/killed/latest")" | sed 's/step-0*//')
mpirun --oversubscribe -np 2 "$windrow" train --resume "$work/killed" train.steps=$((step + 2)) \
    >"$work/said" 2>&1 || bad "resuming after a killed rank"
good "a killed rank ends all, and the run goes on"

# One that hangs is named, and ended with the others.
export WINDROW_PEER_SECONDS=3
begin stopped
kill -STOP "$victim"
ended 25 stopped "rank 1 on [^ ]* has been silent for [34] seconds; it came to this last: "
good "a rank that hangs is named"

echo "$count checks passed"
