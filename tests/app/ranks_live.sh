#!/bin/sh
# Runs of two ranks that are steered, paused, slowed down, ended and gone on with; what one of them
# cannot do, and what one of them has other than the first.
#
#   ranks_live.sh WINDROW PRESETS
set -u
windrow=$1
export WINDROW_PRESETS=$2
work=$(mktemp -d)
job=
trap '[ -z "$job" ] || { kill "$job" && wait "$job"; } 2>/dev/null; rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" XDG_RUNTIME_DIR="$work" OMP_NUM_THREADS=1
export OMP_WAIT_POLICY=passive
unset WINDROW_RANKS WINDROW_RENDEZVOUS WORLD_SIZE RANK
# Shorter than what ranks wait for each other here.
limit=3
export WINDROW_PEER_SECONDS=$limit
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
# two COMMAND WORD ...: windrow on two ranks, the first of which is the process that is started.
two() {
    "$windrow" "$@" --gpus 2
}
# other NAME: the process of rank 1 of a run.
other() {
    pgrep -f "windrow [a-z]* .*$work/$1" | while read -r one; do
        tr '\0' '\n' <"/proc/$one/environ" 2>/dev/null | grep -q '^WINDROW_RANK=1$' && echo "$one"
    done | head -n 1
}
# until_so WHAT COMMAND ...: waits until the command succeeds.
until_so() {
    what=$1
    shift
    waited=0
    until "$@" 2>/dev/null; do
        sleep 0.1
        waited=$((waited + 1))
        [ $waited -lt 900 ] || bad "never came: $what"
    done
}
# events KIND NAME: how many there are.
events() {
    grep -c "\"event\":\"$1\"" "$work/$2/events.jsonl" 2>/dev/null
}
# at_least COUNT KIND NAME
at_least() {
    [ "$(events "$2" "$3")" -ge "$1" ]
}
# steps_go_on NAME: both ranks take three more steps.
steps_go_on() {
    until_so "steps of $1" at_least $(($(events step "$1") + 3)) step "$1"
}
# last_step NAME
last_step() {
    sed -n 's/.*"event":"step".*"step":\([0-9]*\),.*/\1/p' "$work/$1/events.jsonl" | tail -n 1
}
# begin NAME WORD ...: a run of two ranks in the background, once it listens and has done a step.
begin() {
    name=$1
    shift
    # shellcheck disable=SC2086
    "$windrow" "$@" --gpus 2 >"$work/said" 2>&1 &
    job=$!
    until_so "a step of $name" at_least 1 step "$name"
    until_so "a socket of $name" "$windrow" save "$work/$name" >/dev/null
}
# tell COMMAND NAME WORD ...: must be done.
tell() {
    command=$1
    run=$2
    shift 2
    "$windrow" "$command" "$work/$run" "$@" >"$work/told" 2>&1 ||
        bad "$command $*: $(cat "$work/told")"
}
# ended_well NAME
ended_well() {
    wait "$job" || bad "$1: it ended with $?"
    job=
    [ -z "$(other "$1")" ] || bad "$1: a rank is left behind"
}

i=0
while [ $i -lt 700 ]; do
    echo "A cat sat on mat $i and saw $((i * 7 % 13)) birds, then it slept until day $((i % 9)) came."
    i=$((i + 1))
done >"$work/text.txt"
words="stories model.preset=llama-micro device=cpu model.init=random data.train=$work/text.txt
    data.validation=0.3 tokenizer.path=$WINDROW_PRESETS/tokenizers/stories.model
    data.sequence_length=32 train.eval_every=0 train.sample_every=0 batch.accumulate=1 batch.micro=2
    method.rank=16 method.interval=3 train.save_every=0 train.export=false schedule.name=constant
    schedule.warmup=0"

# One that diverges from the start: both go back twice, and end with its code. Rank 0 alone says so.
# shellcheck disable=SC2086
two train $words optimizer.lr=1000 optimizer.weight_decay=1000 train.clip=0 \
    train.steps=60 --run-dir "$work/diverged" >"$work/said" 2>&1
[ $? = 5 ] || bad "a run that diverges ends otherwise"
[ "$(events resume diverged)" = 2 ] || bad "it did not go back twice"
[ "$(grep -c "windrow: error" "$work/said")" = 1 ] || bad "more than rank 0 says it"
good "ranks that diverge end together"

# shellcheck disable=SC2086
begin live train $words train.steps=1000000 optimizer.lr=0.001 train.clip=0 --run-dir "$work/live"
# The events fit, and a checkpoint does not.
if command -v prlimit >/dev/null 2>&1; then
    tell pause live
    prlimit --pid "$job" --fsize=$(($(wc -c <"$work/live/events.jsonl") + 16384)):unlimited
    "$windrow" save "$work/live" >"$work/told" 2>&1 && bad "a full disk took a checkpoint"
    grep -q "checkpoint of step" "$work/told" || bad "no sentence about the disk: $(cat "$work/told")"
    prlimit --pid "$job" --fsize=unlimited:unlimited
    tell resume live
    steps_go_on live
    tell save live
    good "a full disk of rank 0 stops nobody"
fi

tell set live method.rank=8
steps_go_on live
grep '"event":"step"' "$work/live/events.jsonl" | tail -n 1 | grep -q '"rank":8' || bad "rank"
good "a live change reaches both ranks"

tell pause live
before=$(events step live)
sleep $((limit + 2))
[ "$(events step live)" = "$before" ] || bad "a paused run took a step"
tell resume live
steps_go_on live
good "a pause longer than the limit of silence harms nobody"

tell save live
saves=$(events checkpoint live)
# Weights grow by a third a step: some hundred steps until they are not finite, and again so many.
tell set live optimizer.lr=1
tell set live optimizer.weight_decay=2.3
until_so "a return" at_least 1 resume live
tell set live optimizer.weight_decay=0
tell set live optimizer.lr=0.001
grep '"event":"resume"' "$work/live/events.jsonl" | grep -q '"path":".*step-' ||
    bad "it did not go back to a checkpoint"
steps_go_on live
tell save live
[ "$(events checkpoint live)" -gt "$saves" ] || bad "nothing finite to save after a return"
good "both ranks go back to a checkpoint"

slow=$(other live)
kill -STOP "$slow"
"$windrow" stop "$work/live" >"$work/told" 2>&1 &
asked=$!
sleep 1
kill -CONT "$slow"
wait $asked || bad "stop: $(cat "$work/told")"
ended_well live
[ "$(basename "$(readlink -f "$work/live/latest")" | sed 's/step-0*//')" = "$(last_step live)" ] ||
    bad "the last step was not saved"
good "a stop waits for a slow rank"

# Goes on, evaluates and writes longer than the limit of silence, and is told to end.
stood=$(last_step live)
begin live train --resume "$work/live" train.eval_every=0
tell set live train.eval_every=$(($(last_step live) + 40))
steps_go_on live
kill -TERM $job
wait "$job"
ended=$?
job=
[ $ended = 143 ] || bad "SIGTERM: it ended with $ended"
[ "$(basename "$(readlink -f "$work/live/latest")" | sed 's/step-0*//')" = "$(last_step live)" ] ||
    bad "SIGTERM: the last step was not saved"
grep -q '"reason":"interrupted"' "$work/live/events.jsonl" || bad "it was not interrupted"
[ "$(last_step live)" -gt "$stood" ] || bad "it did not go on"
two train --resume "$work/live" train.steps=$(($(last_step live) + 3)) \
    >"$work/said" 2>&1 || bad "resuming after SIGTERM"
good "a run of two ranks is interrupted, and goes on"

# A fork by two ranks of what two ranks trained, with another setting.
# shellcheck disable=SC2086
two fork "$work/live@$stood" train.steps=$((stood + 3)) optimizer.beta1=0.8 \
    --run-dir "$work/forked" >"$work/said" 2>&1 || bad "a fork by two ranks"
[ "$(events step forked)" = 3 ] || bad "a fork took other than three steps"
"$windrow" fork "$work/live@$stood" train.steps=$((stood + 3)) --run-dir "$work/alone" \
    >"$work/said" 2>&1 || bad "a fork by one rank"
good "a run of two ranks is forked by two, and by one"

# Nobody is missed while rank 0 evaluates on a text of some length, which takes it seconds.
# shellcheck disable=SC2086
two train $words data.train="$WINDROW_PRESETS/data/stories.txt" data.validation=0.15 \
    train.steps=2 train.eval_every=1 train.sample_every=1 train.save_every=2 \
    --run-dir "$work/evaluated" >"$work/said" 2>&1 || bad "a long evaluation"
[ "$(events evaluation evaluated)" = 2 ] && [ "$(events sample evaluated)" = 2 ] ||
    bad "no evaluations or samples"
good "the other rank waits for an evaluation of $(awk -F'"time":' '/"event":"(step|evaluation)"/ {
    split($2, part, ","); if (/evaluation/) took = part[1] - at; at = part[1] }
    END { printf "%.1f", took }' "$work/evaluated/events.jsonl") seconds"

# refused CODE SENTENCE COMMAND WORD ...: two ranks end with it, and rank 0 alone says why.
refused() {
    code=$1
    sentence=$2
    shift 2
    two "$@" >"$work/said" 2>&1
    found=$?
    [ $found = "$code" ] || bad "$1: it ended with $found, not $code"
    grep -q "windrow: error: .*$sentence" "$work/said" || bad "no sentence: $sentence"
    [ "$(grep -c "windrow: error" "$work/said")" = 1 ] || bad "more than one error: $sentence"
}
# shellcheck disable=SC2086
{
    refused 3 "cannot open /nonexistent" train $words data.train=/nonexistent
    refused 2 "is not empty" train $words --run-dir "$work/live"
    refused 4 "does not fit" train $words memory.limit=100KiB
}
refused 2 "is not the directory of a run" train --resume "$work/nothing"
refused 2 "has no checkpoint of step 7777777" fork "$work/live@7777777"
two train --resume "$work/evaluated" >"$work/said" 2>&1 || bad "a finished run"
grep -q "is finished: all" "$work/said" || bad "no sentence about a finished run"
good "what cannot begin is refused once"

# Another build of the program on one rank.
cp "$windrow" "$work/other"
printf 'x' >>"$work/other"
[ ! -d "$(dirname "$windrow")/lib" ] || cp -r "$(dirname "$windrow")/lib" "$work/lib"
export WINDROW_RANKS=2 WINDROW_RENDEZVOUS="file:$work/place"
# shellcheck disable=SC2086
WINDROW_RANK=1 "$work/other" train $words train.steps=3 >"$work/said.1" 2>&1 &
job=$!
# shellcheck disable=SC2086
WINDROW_RANK=0 "$windrow" train $words train.steps=3 --run-dir "$work/refused" \
    >"$work/said" 2>&1 && bad "ranks of other builds were taken"
wait "$job" && bad "the other build ended well"
job=
grep -q "rank 1 on [^ ]* has another build of windrow than rank 0 on " "$work/said" ||
    bad "no sentence about the build"
[ ! -e "$work/refused/events.jsonl" ] || bad "a refused run was begun"
good "another build of the program is refused"

echo "$count checks passed"
