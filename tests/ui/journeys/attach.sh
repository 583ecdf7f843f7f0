#!/bin/sh
# Attach: to a run that was started without a screen, at another size, in ASCII; every tab; leave.
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2086
"$program" train stories $small train.steps=100000 >/dev/null 2>&1 &
until "$program" runs 2>/dev/null | grep -q running; do sleep .1; done
LC_ALL=C begin 120 36 attach
see RUNNING
screen | LC_ALL=C grep -q '[^ -~]' && die 'that is not ASCII'
number=1
for name in Run Layers Memory Tune Compare Samples Log; do
    press "$number"
    see "[$number $name]"
    number=$((number + 1))
done
t resize-window -t journey -x 80 -y 24
see '[7 Log]'
press 1
see 'memory: peak'
press p
see PAUSED
press p
see RUNNING
t resize-window -t journey -x 30 -y 8
see 'step'
t resize-window -t journey -x 80 -y 24
see '[1 Run]'
press S
see 'stop the run?'
press s
see STOPPED
press q
ended 0
