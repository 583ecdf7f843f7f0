#!/bin/sh
# bench_train and bench_train.py in turns, so that both meet the same neighbours on the machine.
#
#   compare.sh BENCH_TRAIN [ROUNDS [STEPS]]
#
# PYTHON names the interpreter (default: the first of python3, /usr/bin/python3 that has PyTorch).
# For a fair peer PyTorch needs a fast BLAS: Debian's package takes the reference one unless
# libopenblas0 is installed.
set -eu
program=$1
rounds=${2:-3}
steps=${3:-8}
folder=$(dirname "$0")
results=$(mktemp)
trap 'rm -f "$results"' EXIT
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"

python=
for candidate in ${PYTHON:-python3 /usr/bin/python3}; do
    if "$candidate" -c 'import torch' >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "PyTorch is missing, so there is no comparison. To get it: apt-get install python3-torch"
    echo "libopenblas0, or name an interpreter that has it: make bench PYTHON=/path/to/python3"
fi

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    for dtype in fp32 bf16; do
        GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-20000} "$program" --json --steps "$steps" \
            "full-$dtype" "grass-$dtype" | sed 's/^/windrow /' >>"$results"
        [ -n "$python" ] || continue
        if line=$("$python" "$folder/bench_train.py" --json --steps "$steps" --dtype "$dtype"); then
            echo "pytorch $line" >>"$results"
        else
            python= # it has said why
        fi
    done
    echo "round $round of $rounds done" >&2
done

awk -v rounds="$rounds" '
function field(name,    at, text) {
    at = index($0, "\"" name "\":")
    if (at == 0) { return "" }
    text = substr($0, at + length(name) + 3)
    sub(/^ *"?/, "", text)
    sub(/[",}].*/, "", text)
    return text
}
function middle(key,    n, i, j, t, v) {
    n = split(steps[key], v, " ")
    for (i = 2; i <= n; i++) {
        for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
{
    key = $1 " " field("case")
    if (!(key in steps)) { order[++count] = key; least[key] = 1e30 }
    steps[key] = steps[key] " " field("step_ms")
    if (field("least_ms") + 0 < least[key]) { least[key] = field("least_ms") + 0 }
    rate[key] = field("step_ms") * field("tokens_per_second")
    if (field("torch") != "") { version = field("torch") }
}
END {
    printf "%-20s %12s %10s %10s   %s\n", "", "median ms", "least ms", "tokens/s",
           "PyTorch full of the same dtype = 1 (median, least)"
    for (i = 1; i <= count; i++) {
        key = order[i]
        peer = "pytorch full-" substr(key, index(key, "-") + 1)
        printf "%-20s %12.1f %10.1f %10.0f", key, middle(key), least[key], rate[key] / middle(key)
        if (peer in steps) {
            printf "   %.2f %.2f", middle(peer) / middle(key), least[peer] / least[key]
        }
        printf "\n"
    }
    if (version != "") { printf "PyTorch %s, %d rounds in turns\n", version, rounds }
}' "$results"
