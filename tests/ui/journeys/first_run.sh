#!/bin/sh
# First run: a newcomer opens the workbench, presses Enter, watches, leaves; the run goes on.
. "$(dirname "$0")/lib.sh"
begin 80 24
see 'choose a model, data and a preset; Enter trains'
see 'fits: '
press ?
see 'help: Home'
press Escape
see 'Enter start training'
press :
say "set $small train.steps=100000"
press Enter
see 'settings changed: '
see 'fits: '
press Enter
see RUNNING
see 'captured energy'
press P
see 'this screen is in'
grep -q '</svg>' windrow-*-run-*.svg || die 'no picture was written'
press q
ended 0
"$program" runs | grep -q running || die 'the run did not go on'
stop_all
tries=100
while "$program" runs | grep -q running; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die 'it could not be stopped'
    sleep .1
done
