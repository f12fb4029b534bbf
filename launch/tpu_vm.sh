#!/usr/bin/env bash
# Pretrain on a Cloud TPU slice (one TPU VM or many): the same command on every host; they find each other by themselves.
#
#   launch/tpu_vm.sh [--dry-run] TPU_NAME ZONE --workdir=DIR FLAGS...
#   launch/tpu_vm.sh pod us-west4-a --workdir=/mnt/nfs/base --config=configs/pretrain.py:base --config.data.store=/mnt/nfs/mimic \
#       --config.mesh.fsdp=16 --config.batch_size=2048
#
# DIR must be one folder for all hosts: an NFS disk (Filestore) mounted at the same path on each. A bucket (gs://) is no folder;
# mounted with gcsfuse it serves for the store, but not for the workdir, whose checkpoints need renames that are all or nothing.
# The repository, installed with '.[tpu]', is expected in CODE=lamae_jax below the home of every host, run by PYTHON=python3.
#
# What is seen here is each host's pretrain.log; the training does not need this terminal to stay. To stop it after saving,
# SIGTERM to any one host is enough (exit code 75); the same line again goes on, also after a preemption:
#   gcloud compute tpus tpu-vm ssh TPU_NAME --zone=ZONE --worker=0 --command='kill $(cat lamae_jax/pretrain.pid)'
#
# The flags that matter:
#   --config.mesh.fsdp         small fits one chip: leave it at 1, all chips share out the batch (data). base: a row of the slice,
#                              16 of a v5e 16x16, so that its traffic stays on short links; data takes the rest. large: 32.
#   --config.batch_size        of all chips together, a multiple of their number; the peak rate follows it from small on
#   --config.dtype             bfloat16 is the default from small on
#   --config.checkpoint.every  steps that a preemption without warning may cost
set -euo pipefail

wrong() {
    echo "error: $1; usage: launch/tpu_vm.sh [--dry-run] TPU_NAME ZONE --workdir=DIR FLAGS..." >&2
    exit 2
}
run=(exec)
show() { printf '%q ' "$@"; echo; }
if [ "${1:-}" = --dry-run ]; then
    run=(show)
    shift
fi
[[ "${1:--}" != -* ]] || wrong "TPU_NAME=${1:-}: must be the name of a TPU"
[[ "${2:--}" != -* ]] || wrong "ZONE=${2:-}: must be the zone of the TPU"
name=$1 zone=$2 workdir=
shift 2
before=
for flag in "$@"; do
    if [[ $before == --workdir && $flag != --* ]]; then flag=--workdir=$flag; fi # written as two words
    case $flag in --workdir=*) workdir=${flag#*=} ;; esac
    before=$flag
done
[[ "$workdir" == /* ]] || wrong "--workdir=$workdir: must be a full path, on a disk that all hosts have mounted there"

# nohup, and a log that tail only follows: a connection that breaks ends what is seen here, not the training.
remote="cd ${CODE:-lamae_jax} || exit; nohup ${PYTHON:-python3} -m lamae_jax.main$(printf ' %q' "$@") >> pretrain.log 2>&1 < /dev/null &"
remote+=" echo \$! > pretrain.pid; tail --pid=\$! -n 0 -f pretrain.log; wait \$!"
"${run[@]}" gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$remote"
