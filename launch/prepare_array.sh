#!/usr/bin/env bash
# Prepare a large source as a SLURM job array: task i of N makes the shards i, i + N, i + 2N, ...; when all have ended well,
# one more job merges their tables and writes the manifest. Tasks that failed or were killed: submit the same line again,
# what is done stays done. Run it where the environment is active; the store must lie on a disk that all nodes see. Each
# task and the merge write their log and summary to a folder of their own below runs/, so there is no --workdir.
#
#   launch/prepare_array.sh [--dry-run] N FLAGS...
#   launch/prepare_array.sh 32 --config=configs/prepare.py:mimic_iv_ecg --config.source=/data/mimic-iv-ecg --config.store=stores/mimic
#
# More for sbatch (partition, account, time) through SLURM's own variables, such as SBATCH_PARTITION and SBATCH_TIMELIMIT.
set -euo pipefail

wrong() {
    echo "error: $1; usage: launch/prepare_array.sh [--dry-run] N FLAGS..." >&2
    exit 2
}
submit=(sbatch)
show() { printf '%q ' "$@"; echo; }
if [ "${1:-}" = --dry-run ]; then
    submit=(show sbatch)
    shift
fi
[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] || wrong "N=${1:-}: must be a number of tasks"
tasks=$1 cores=${CORES:-8}
shift
[ $# -gt 0 ] || wrong "FLAGS: missing; they say what to prepare"
for flag in "$@"; do
    case $flag in --workdir | --workdir=*) wrong "--workdir: leave it out; every task and the merge choose their own" ;; esac
done

command="${PYTHON:-python} -m lamae_jax.main $(printf '%q ' "$@")--config.workers=$cores"
array=$("${submit[@]}" --parsable --job-name=prepare --array="0-$((tasks - 1))" --cpus-per-task="$cores" \
    --wrap="$command --config.shard=\$SLURM_ARRAY_TASK_ID/$tasks")
[ "${submit[0]}" = show ] && echo "$array" && array=ARRAY
# --kill-on-invalid-dep: where a task fails the merge can never begin, and would wait in the queue for ever.
"${submit[@]}" --job-name=prepare-merge --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes --cpus-per-task="$cores" \
    --wrap="$command --config.merge=true"
