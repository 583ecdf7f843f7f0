#!/bin/sh
# What ranks of this processor exchange, against what the plan's model says: over TCP, and over MPI
# where there is mpirun.
#
#   bench_ranks.sh PROGRAM [RANKS [STEPS]]
set -eu
program=$1
ranks=${2:-2}
steps=${3:-12}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
echo "over TCP:"
rank=$((ranks - 1))
while [ $rank -gt 0 ]; do
    WINDROW_RENDEZVOUS="file:$place/ranks" WINDROW_RANKS=$ranks WINDROW_RANK=$rank \
        "$program" "$steps" &
    rank=$((rank - 1))
done
WINDROW_RENDEZVOUS="file:$place/ranks" WINDROW_RANKS=$ranks WINDROW_RANK=0 "$program" "$steps"
wait
if ! command -v mpirun >/dev/null 2>&1; then
    echo "over MPI: needs openmpi-bin"
    exit 0
fi
echo "over MPI:"
code=0
mpirun --oversubscribe -np "$ranks" "$program" "$steps" || code=$?
[ "$code" = 77 ] && exit 0
exit "$code"
