#!/bin/sh
# doctor finds a library under every name under which the engine opens it, and where the first name
# leads to something else than a library.
#
#   libraries.sh WINDROW CUSOLVER NCCL    two libraries for tests that have the functions of those
set -eu
windrow=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

found() { # NAME
    LD_LIBRARY_PATH=$folder "$windrow" doctor | grep -q "^$1  *found" || {
        echo "doctor does not find $1 with: $(ls "$folder")"
        LD_LIBRARY_PATH=$folder "$windrow" doctor
        exit 1
    }
}

for name in libcusolver.so.12 libcusolver.so.11 libcusolver.so; do
    cp "$2" "$folder/$name"
    found cusolver
    echo "no library" >"$folder/$name"
done
cp "$3" "$folder/libnccl.so.2"
found nccl
