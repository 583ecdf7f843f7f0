#!/bin/sh
# Several ranks: a run of two is started from the launcher, watched rank by rank, stopped, and goes
# on with as many.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
begin 110 30
see 'fits: '
press :
say "set device=cpu $small train.steps=100000"
press Enter
see 'settings changed: '
press n
see 'how many GPUs train together'
press C-u
say 2
press Enter
see 'each of 2 ranks fits: '
press c
see 'gpus 2'
press Escape
press Enter
see RUNNING
see '2 ranks, '
press r
see ' behind the mean, exchange '
see 'by number, 1-2 of 2'
press v
see 'slowest first, 1-2 of 2'
press Escape
see '2 ranks    '
press S
see 'stop the run?'
press s
see STOPPED
press r
see 'slowest first, 1-2 of 2'
press 0
see 'Enter start training'
press Tab
see stopped
press r
see RUNNING
see '2 ranks, '
press S
see 'stop the run?'
press s
see STOPPED
press q
ended 0
run=$("$program" runs --json | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' | head -n 1)
[ "$(grep -c '"event":"start".*"ranks":2' "$XDG_STATE_HOME/windrow/runs/$run/events.jsonl")" = 2 ] ||
    die 'it did not go on with two ranks'
"$program" show "$run" | grep -q '^ \* [01] ' || die 'show does not mark the slowest'
