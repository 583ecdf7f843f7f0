#!/bin/sh
# Resume: a stopped run goes on from the list of the launcher, past where it ended, and a fork of it
# begins with another rate.
. "$(dirname "$0")/lib.sh"
train short train.steps=100000 &
until "$program" runs 2>/dev/null | grep -q running; do sleep .1; done
until "$program" show short --json 2>/dev/null | grep -q '"step": *[1-9]'; do sleep .1; done
"$program" stop short >/dev/null 2>&1
wait
begin 100 30
see 'fits: '
press Tab
see short
press r
see RUNNING
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
press :
say 'screen log'
press Enter
see forked
press S
see 'stop the run?'
press s
see STOPPED
press q
ended 0
[ "$("$program" runs --json | grep -c '"name"')" = 2 ] || die 'there should be two runs'
