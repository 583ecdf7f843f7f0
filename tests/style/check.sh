#!/bin/sh
# Checks the sources of a tree against the rules of the house (see check.awk), and their format if
# clang-format is installed.
#
#   check.sh ROOT          prints violations; exit 1 if there are any
set -u
root=$1
here=$(cd "$(dirname "$0")" && pwd)
cd "$root" || exit 2

list=$(find app engine kernels tokenizer tests \
    \( -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print 2>/dev/null |
    sort)
if [ -z "$list" ]; then
    echo "no sources under $root" >&2
    exit 2
fi
found=$(for path in $list; do
    awk -v path="$path" -f "$here/check.awk" "$path"
done)
if command -v clang-format >/dev/null 2>&1 && [ -f .clang-format ]; then
    unformatted=$(for path in $list; do
        clang-format --dry-run -Werror "$path" >/dev/null 2>&1 ||
            echo "$path:1: not as clang-format writes it (make format)"
    done)
else
    unformatted=
    echo "clang-format is not installed: the format is not checked"
fi
if [ -n "$found$unformatted" ]; then
    printf '%s\n' "$found" "$unformatted" | sed '/^$/d'
    printf '%s violations\n' "$(printf '%s\n' "$found" "$unformatted" | sed '/^$/d' | wc -l)"
    exit 1
fi
echo "$(printf '%s\n' "$list" | wc -l) files follow the rules"
