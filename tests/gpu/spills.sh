#!/bin/sh
# Fails if a kernel spills registers: reads what ptxas said of each (spills.sh FOLDER, the one with
# the logs of the compiler).
set -u
kernels=$(cat "$1"/*.log | grep -c '^ptxas info *: Used ')
if [ "$kernels" -eq 0 ]; then
    echo "no kernels in $1"
    exit 1
fi
awk '/Function properties for/ { name = $NF }
     /spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ {
         print FILENAME ": " name ": " $0
         bad = 1
     }
     END { exit bad }' "$1"/*.log || exit 1
echo "$kernels kernels without spills"
