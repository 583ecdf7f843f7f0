#!/bin/sh
# Runs of several ranks: the same losses as of one, however they were started; saving and resuming
# with another number of ranks; and what happens when a rank is lost, stopped or different.
#
#   ranks.sh WINDROW PRESETS     parts that need mpirun and its module are left out without them
set -u
windrow=$1
export WINDROW_PRESETS=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset WINDROW_RANKS WINDROW_RENDEZVOUS WORLD_SIZE RANK
mpi=no
command -v mpirun >/dev/null 2>&1 && [ -f "$(dirname "$windrow")/lib/windrow_mpi.so" ] && mpi=yes
count=0
bad() {
    echo "FAILED: $*"
    for file in "$work"/said*; do
        [ -f "$file" ] && tail -n 20 "$file"
    done
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
grep -q "^  ranks  *2 ranks, slowest [01] .* behind the mean" "$work/said" ||
    bad "the summary does not say who is slowest"
"$windrow" show "$work/two" >"$work/said" 2>&1
grep -q "^ranks  *2, .* exchanged a step" "$work/said" || bad "show does not tell the ranks"
grep -q "^  *2 ranks, slowest [01] .* behind the mean, exchange [0-9]*% of a step" "$work/said" ||
    bad "show does not say who is slowest"
[ "$(grep -c "^ [ *] [01]  .* ms .* MiB " "$work/said")" = 2 ] || bad "show has no table of ranks"
"$windrow" show --json "$work/two" >"$work/said" 2>&1
grep -q '"slowest_rank":[[:space:]]*[01],' "$work/said" || bad "show --json has no slowest rank"
[ "$(grep -c '"compute_ms":' "$work/said")" = 2 ] || bad "show --json does not tell both ranks"
"$windrow" snapshot "$work/two" --screen ranks --size 80x24 --glyphs ascii >"$work/said" 2>&1
grep -q "ranks =* by number, 1-2 of 2" "$work/said" || bad "the page of ranks cannot be had as text"
grep -q "^| \*  *[01] .* CC*\.\.* " "$work/said" || bad "the page of ranks does not mark the slowest"
"$windrow" show "$work/one" >"$work/said" 2>&1
grep -q "^RANK\|^ranks" "$work/said" && bad "show tells of ranks where there is one"
grep '"event":"ranks"' "$work/two/events.jsonl" | tail -n 1 >"$work/said"
grep -q '"step":8,.*"slowest":[01],.*"rank":0,"host":".*"compute_ms":[0-9].*"rank":1,.*"wait_ms":[0-9]' \
    "$work/said" || bad "no event tells how the ranks fare"
grep -q '"event":"ranks"' "$work/one/events.jsonl" && bad "a single rank tells of ranks"
good "two ranks have the losses of one"

# Without MPI: a program that has no module beside it, nor mpirun.
mkdir "$work/bin"
cp "$windrow" "$work/bin/windrow"
# shellcheck disable=SC2086
env PATH=/nowhere "$work/bin/windrow" train $words batch.micro=1 train.steps=4 --gpus 4 \
    --run-dir "$work/four" >"$work/said" 2>&1 || bad "four ranks without MPI"
good "four ranks without MPI"

# both NAME VARIABLES...: two processes, each with the variables and R for its rank. Their codes are
# in `codes`.
both() {
    name=$1
    shift
    pids=
    for R in 1 0; do
        (
            for pair in "$@"; do
                # shellcheck disable=SC2163
                export "$(echo "$pair" | sed "s/@/$R/")"
            done
            # shellcheck disable=SC2086
            exec "$windrow" train $words batch.micro=2 train.steps=8 --run-dir "$work/$name" \
                >"$work/said$R" 2>&1
        ) &
        pids="$pids $!"
    done
    codes=
    for pid in $pids; do
        wait "$pid"
        codes="$codes $?"
    done
}
both file WINDROW_RENDEZVOUS=file:"$work/place" WINDROW_RANKS=2 WINDROW_RANK=@
[ "$codes" = " 0 0" ] || bad "two ranks that meet by a file ended with$codes"
same "$work/one" "$work/file" 1 || bad "two ranks that meet by a file differ from one"
[ ! -s "$work/said1" ] || bad "rank 1 said something"
good "two processes meet by a file"
both torch WORLD_SIZE=2 RANK=@ LOCAL_RANK=@ MASTER_ADDR=localhost MASTER_PORT=$((20000 + $$ % 9000))
[ "$codes" = " 0 0" ] || bad "two ranks as torchrun starts them ended with$codes"
same "$work/one" "$work/torch" 1 || bad "two ranks as torchrun starts them differ from one"
good "two processes meet as torchrun says"
both twice WORLD_SIZE=2 RANK=@ WINDROW_RENDEZVOUS=tcp:nowhere
[ "$codes" = " 2 2" ] || bad "a wrong place ended with$codes"
grep -q "WINDROW_RENDEZVOUS is tcp:nowhere; it has to be tcp://HOST:PORT or file:/PATH" \
    "$work/said0" || bad "no sentence about the place"
rm "$work"/said?
WORLD_SIZE=2 RANK=0 MASTER_ADDR=localhost MASTER_PORT=5 "$windrow" train stories --gpus 2 \
    >"$work/said" 2>&1 && bad "--gpus within torchrun was taken"
grep -q "torchrun started 2 ranks already" "$work/said" || bad "no sentence about --gpus"
good "places that are none are refused"

cat >"$work/resume" <<'END'
#!/bin/sh
exec "$1" train --resume "$2" train.steps=8 batch.micro=2 --accept-change batch.micro $3 $4
END
if [ $mpi = yes ]; then # what Open MPI never frees is not ours
    ASAN_OPTIONS="detect_leaks=0" mpirun --oversubscribe -np 2 sh "$work/resume" "$windrow" \
        "$work/four" >"$work/said" 2>&1 || bad "resuming a run of four ranks with two"
else
    sh "$work/resume" "$windrow" "$work/four" --gpus 2 >"$work/said" 2>&1 ||
        bad "resuming a run of four ranks with two"
fi
same "$work/one" "$work/four" 1 || bad "four ranks and then two differ from one"
good "a run of four ranks goes on with two (mpirun: $mpi)"

# Optimizer states are split over the ranks, and saved whole: two go on with those of four, one with
# those of two, which a signal ended.
# shellcheck disable=SC2086
"$windrow" train $words method.name=full batch.micro=4 train.steps=12 --run-dir "$work/whole" \
    >"$work/said" 2>&1 || bad "full training on one rank"
# shellcheck disable=SC2086
"$windrow" train $words method.name=full batch.micro=1 train.steps=4 --gpus 4 \
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
end=$((step + 2))
[ $end -ge 12 ] || end=12
"$windrow" train --resume "$work/split" train.steps=$end batch.micro=4 \
    --accept-change batch.micro >"$work/said" 2>&1 || bad "one rank does not go on with split states"
same "$work/split" "$work/whole" 1 || bad "split states change the losses"
good "states of four ranks, then two, then one"

# Ranks that are given other words: the same name stands for another file.
mkdir "$work/other"
yes "A text that is here." | head -n 500 >"$work/text.txt"
yes "A text that is there." | head -n 500 >"$work/other/text.txt"
for R in 0 1; do
    (
        cd "$work" || exit 1
        [ $R = 1 ] && cd other
        WINDROW_RENDEZVOUS=file:$work/place WINDROW_RANKS=2 WINDROW_RANK=$R exec "$windrow" train \
            stories device=cpu model.init=random data.train=text.txt train.steps=2 \
            tokenizer.path="$WINDROW_PRESETS/tokenizers/stories.model" batch.micro=1 \
            data.sequence_length=16 --run-dir "$work/refused" >"$work/said$R" 2>&1
    ) &
    eval "job$R=\$!"
done
wait "$job0" && bad "rank 0 took a rank with other data"
wait "$job1" && bad "rank 1 was taken with other data"
grep -q "rank 1 on [^ ]*: started with another recipe than rank 0: data.train" "$work/said0" ||
    bad "no sentence about the recipe"
[ ! -e "$work/refused/events.jsonl" ] || bad "a refused run was begun"
rm "$work"/said?
good "ranks that differ are refused"

# begin NAME: a long run of two ranks in a process group of its own; returns when it has a
# checkpoint. `job` is rank 0 and the group, `victim` is rank 1.
begin() {
    # shellcheck disable=SC2086
    setsid "$windrow" train $words batch.micro=2 train.steps=100000 --gpus 2 \
        --run-dir "$work/$1" >"$work/said" 2>&1 &
    job=$!
    waited=0
    until grep -q '"event":"checkpoint"' "$work/$1/events.jsonl" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        [ $waited -lt 600 ] || bad "no checkpoint came"
    done
    victim=$(pgrep -P $job)
    [ -n "$victim" ] || bad "rank 1 was not found"
    began=$(date +%s)
}
# none_left NAME: no process of that run is there.
none_left() {
    ! pgrep -f "windrow train .*$work/$1" >/dev/null || bad "$1: a rank is left behind"
}
# ended SECONDS NAME SENTENCE: the run has ended badly by then, and said why.
ended() {
    wait $job && bad "$2: it ended well"
    took=$(($(date +%s) - began))
    [ $took -le "$1" ] || bad "$2: it took $took seconds"
    none_left "$2"
    grep -q "$3" "$work/said" || bad "$2: no such sentence: $3"
}

# A rank that is killed ends all of them; the run goes on from its checkpoint.
begin killed
kill -9 "$victim"
ended 10 killed "rank 1 on [^ ]* is gone; it came to this last: .*; rank 0 waits in the "
grep -q "go on  *windrow train --resume [^ ]*killed --gpus 2$" "$work/said" || bad "killed: it does not say how to go on"
step=$(basename "$(readlink -f "$work/killed/latest")" | sed 's/step-0*//')
"$windrow" train --resume "$work/killed" train.steps=$((step + 2)) --gpus 2 >"$work/said" 2>&1 ||
    bad "resuming after a killed rank"
good "a killed rank ends all, and the run goes on"

# So does rank 0, which nobody is left to wait for.
begin first
kill -9 "$job"
wait $job
waited=0
while pgrep -f "windrow train .*$work/first" >/dev/null; do
    sleep 0.2
    waited=$((waited + 1))
    [ $waited -lt 50 ] || bad "first: a rank is left behind"
done
good "a killed rank 0 leaves nobody behind"

# Ctrl-C, which all of them hear.
begin asked
kill -INT -"$job"
wait $job
code=$?
[ $code = 130 ] || bad "asked: it ended with $code"
none_left asked
grep -q "interrupted, the state is saved" "$work/said" || bad "asked: no such sentence"
step=$(basename "$(readlink -f "$work/asked/latest")" | sed 's/step-0*//')
"$windrow" train --resume "$work/asked" train.steps=$((step + 2)) --gpus 2 >"$work/said" 2>&1 ||
    bad "resuming after Ctrl-C"
good "Ctrl-C saves, and the run goes on"

# One that hangs is named, and ended with the others.
export WINDROW_PEER_SECONDS=3
begin stopped
kill -STOP "$victim"
ended 25 stopped "rank 1 on [^ ]* has been silent for [34] seconds; it came to this last: "
good "a rank that hangs is named"

echo "$count checks passed"
