#!/usr/bin/env bash
# Pretrain on a TPU slice of a GKE cluster through xpk (pip install xpk): one container a host; they find each other by themselves.
#
#   IMAGE=NAME [STORAGE=NAME] launch/gke.sh [--dry-run] CLUSTER TPU_TYPE --workdir=DIR FLAGS...
#   IMAGE=gcr.io/PROJECT/lamae STORAGE=nfs launch/gke.sh tpus v5litepod-256 --workdir=/mnt/nfs/base --config=configs/pretrain.py:base \
#       --config.data.store=/mnt/nfs/mimic --config.mesh.fsdp=16 --config.batch_size=2048
#
# IMAGE holds this repository as its working directory, installed with '.[tpu]'. DIR must be one folder for all hosts: a disk
# that `xpk storage attach` (Filestore) mounts there, named by STORAGE unless it is mounted by itself. A bucket (gs://) is no
# folder; as a gcsfuse mount it serves for the store, but not for the workdir, whose checkpoints need renames that are all or
# nothing. Project and zone are those of `gcloud config`. The workload is called lamae- and the last part of DIR, as
# far as Kubernetes and xpk allow its letters and its length.
#
# A preempted host's SIGTERM makes all hosts save at one step and end with 75; one that dies ends the others with 4, the first
# one with 134 (xpk itself starts again after 127 to 255). Either way the workload starts again, up to 100 times, and goes on
# from its newest checkpoint. A mistake (2) ends it for good. A workload that failed keeps its name until it is deleted; only
# then the same line can create it again: xpk workload delete --cluster=CLUSTER --workload=lamae-...
#
# The flags that matter are those of launch/tpu_vm.sh. TPU_TYPE is one slice: mesh.fsdp=16 is a row of a v5litepod-256.
set -euo pipefail

wrong() {
    echo "error: $1; usage: IMAGE=NAME launch/gke.sh [--dry-run] CLUSTER TPU_TYPE --workdir=DIR FLAGS..." >&2
    exit 2
}
run=(exec)
show() { printf '%q ' "$@"; echo; }
if [ "${1:-}" = --dry-run ]; then
    run=(show)
    shift
fi
[[ "${1:--}" != -* ]] || wrong "CLUSTER=${1:-}: must be the name of a cluster"
[[ "${2:--}" != -* ]] || wrong "TPU_TYPE=${2:-}: must be a kind of TPU slice, such as v5litepod-16"
cluster=$1 kind=$2 workdir=
shift 2
before=
for flag in "$@"; do
    if [[ $before == --workdir && $flag != --* ]]; then flag=--workdir=$flag; fi # written as two words
    case $flag in --workdir=*) workdir=${flag#*=} ;; esac
    before=$flag
done
[[ "$workdir" == /* ]] || wrong "--workdir=$workdir: must be a full path, on a disk that all containers have mounted there"
[ -n "${IMAGE:-}" ] || wrong "IMAGE: missing; must name a container image that holds this repository"

# Lower case, digits and single -, 40 characters at most, no - at the end.
name=$(echo "lamae-$(basename "$workdir")" | tr '[:upper:]' '[:lower:]' | LC_ALL=C tr -cs 'a-z0-9\n' -)
name=${name:0:40}
name=${name%-}
# exec: SIGTERM must reach the training, not a shell around it.
"${run[@]}" xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$kind" --docker-image="$IMAGE" \
    ${STORAGE:+--storage="$STORAGE"} --max-restarts=100 --restart-on-exit-codes=4,75 --termination-grace-period-seconds=120 \
    --command="exec ${PYTHON:-python} -m lamae_jax.main$(printf ' %q' "$@")"
