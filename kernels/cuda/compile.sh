#!/bin/sh
# compile.sh LOG COMMAND...: runs a compiler, keeps what it says in LOG (with -Xptxas -v: registers
# and spills of each kernel), and shows it only if it fails.
log=$1
shift
"$@" >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
