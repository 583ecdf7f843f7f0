#!/bin/sh
# Change the rank of a running run: stage it, see what it would take, apply, see it measured, undo.
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2086
"$program" train stories $small train.steps=100000 >/dev/null 2>&1 &
until "$program" runs 2>/dev/null | grep -q running; do sleep .1; done
begin 100 30 attach
see RUNNING
press 4
see '[4 Tune]'
press Right
see 'staged: method.rank=16'
see 'memory '
see 'from the next step; a applies'
press a
see 'method.rank = 16 holds from step'
see '8 -> 16'
see 'measured'
press u
see '16 -> 8'
press :
say 'lr 0.002'
press Enter
see 'optimizer.lr = 0.002 holds from step'
see '-> 0.002'
press :
say 'rank 0'
press Enter
see 'method.rank'
see 'must be 1 .. 65536'
press q
ended 0
"$program" show "$XDG_STATE_HOME"/windrow/runs/* | grep -q 'setting .*method.rank = 16' ||
    die 'the run does not remember its changes'
