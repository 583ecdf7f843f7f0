#!/bin/sh
# Several ranks: a run of two is started from the launcher, watched rank by rank, stopped, goes on
# with as many, and is forked; another one is started from the command line.
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
press 4
press F
see 'fork: RUN[@STEP]'
say ' optimizer.lr=0.001'
press Enter
see RUNNING
press 1
see '2 ranks, '
told '"reason":"forked"'
press S
see 'stop the run?'
press s
see STOPPED
press q
ended 0
# shellcheck disable=SC2086
begin 110 30 train stories --attach --gpus 2 device=cpu $small train.steps=100000
see RUNNING
see '2 ranks, '
press S
see 'stop the run?'
press s
see STOPPED
press q
ended 0
[ "$(cat "$XDG_STATE_HOME"/windrow/runs/*/events.jsonl | grep '"event":"start"' |
    grep -c '"ranks":2')" = 4 ] || die 'a run had not two ranks'
run=$("$program" runs --json | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' | head -n 1)
"$program" show "$run" | grep -q '^ \* [01] ' || die 'show does not mark the slowest'
