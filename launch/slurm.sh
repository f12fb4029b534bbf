#!/usr/bin/env bash
# Pretrain on a SLURM cluster with NODES x GPUS_PER_NODE processes, one a GPU; they find each other by themselves.
#
#   launch/slurm.sh [--dry-run] NODES GPUS_PER_NODE --workdir=DIR FLAGS...
#   launch/slurm.sh 4 8 --workdir=runs/base --config=configs/pretrain.py:base --config.data.store=stores/mimic --config.mesh.fsdp=8
#
# Run it where the environment is active; workdir and store must lie on a disk that all nodes see. Two minutes before the time
# limit the job saves and queues itself again, as often as it takes; nodes that fail or are taken away: SLURM queues it again.
# A process that dies ends the whole job, and the log (slurm-JOB.out, lines numbered by process) says which; the same line
# again goes on from the newest checkpoint. CORES=8 processor cores a process; more for sbatch (partition, account, time)
# through SLURM's own variables, such as SBATCH_PARTITION and SBATCH_TIMELIMIT.
#
# The flags that matter:
#   --config.mesh.fsdp         small fits one GPU: leave it at 1, all GPUs share out the batch (data). base: the GPUs of a node,
#                              so that its traffic stays inside the node. large: 32.
#   --config.batch_size        of all GPUs together, a multiple of their number; the peak rate follows it from small on
#   --config.dtype             bfloat16 is the default from small on
#   --config.checkpoint.every  steps that a dead node may cost; the time limit costs none
#   XLA_FLAGS                  unless set: communication during computation, which XLA leaves off on GPUs
set -euo pipefail

wrong() {
    echo "error: $1; usage: launch/slurm.sh [--dry-run] NODES GPUS_PER_NODE --workdir=DIR FLAGS..." >&2
    exit 2
}
submit='sbatch'
if [ "${1:-}" = --dry-run ]; then
    submit='cat'
    shift
fi
[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] || wrong "NODES=${1:-}: must be a number of nodes"
[[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || wrong "GPUS_PER_NODE=${2:-}: must be a number of GPUs"
nodes=$1 gpus=$2 cores=${CORES:-8} workdir=
shift 2
before=
for flag in "$@"; do
    if [[ $before == --workdir && $flag != --* ]]; then flag=--workdir=$flag; fi # written as two words
    case $flag in --workdir=*) workdir=${flag#*=} ;; esac
    before=$flag
done
[ -n "$workdir" ] || wrong "--workdir: missing; all processes share this folder"

# 75, "saved, goes on", is no failure: it must neither have the other processes killed while they leave nor hide a real one.
# SIGTERM reaches this shell too, which has to outlive the training that answers it.
task="trap : TERM; ${PYTHON:-python} -m lamae_jax.main$(printf ' %q' "$@"); code=\$?; exit \$((code == 75 ? 0 : code))"

# TERM@120, not B:TERM@120: to the processes of the training, not to this batch script.
# --gpu-bind=none, not --gpus-per-task: JAX gives process i of a node GPU i, so each must see them all.
$submit <<SCRIPT
#!/usr/bin/env bash
#SBATCH --job-name=pretrain
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$gpus
#SBATCH --gpus-per-node=$gpus
#SBATCH --cpus-per-task=$cores
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
export XLA_FLAGS="\${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}"
srun --cpus-per-task=$cores --gpu-bind=none --kill-on-bad-exit=1 --label bash -c ${task@Q} || exit
# Ended well without a summary: stopped after saving. The same job once more goes on from there.
[ -e $(printf %q "$workdir/summary.json") ] || scontrol requeue "\$SLURM_JOB_ID"
SCRIPT
