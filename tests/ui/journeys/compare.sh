#!/bin/sh
# Compare: two finished runs over each other, what differs, another axis, and a file of the screen.
. "$(dirname "$0")/lib.sh"
train one train.steps=12
train two train.steps=12 method.name=full optimizer.lr=0.001
begin 120 36 attach one
see 'DONE 12/12'
press 5
see 'Enter chooses runs to put beside this one'
press Enter
see '[ ] two'
see '[x] one'
press g
press Space
see '[x] two'
see 'b two'
press Enter
press Down
see 'settings that differ'
see 'method.name'
see 'a against b: loss'
press x
see 'by tokens'
press x
see 'by time'
press :
say 'snapshot compare.txt'
press Enter
see 'this screen is in'
grep -q 'settings that differ' compare.txt || die 'the text is not the screen'
press q
ended 0
"$program" compare one two | grep -q 'method.name' || die 'the command says something else'
