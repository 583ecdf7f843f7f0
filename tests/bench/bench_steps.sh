#!/bin/sh
# How fast the embedded default trains, method by method: the summary of short runs.
#
#   bench_steps.sh PROGRAM [STEPS]
set -eu
program=$1
steps=${2:-30}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work"

for words in method.name=full "method.name=grass method.rank=16" "method.name=grass method.rank=64"; do
    echo "stories, $words, $steps steps:"
    # shellcheck disable=SC2086 # several settings
    "$program" train stories $words train.steps="$steps" train.eval_every=0 train.save_every=0 \
        train.sample_every=0 2>&1 | grep -E '^  (speed|memory)|error'
done
