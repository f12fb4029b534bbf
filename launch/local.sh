#!/usr/bin/env bash
# One process on this machine over its first N devices: NVIDIA GPUs where there are any, else N virtual CPU devices
# (to try a mesh before paying for one; they share the cores and are no faster).
#
#   launch/local.sh [--dry-run] N FLAGS...
#   launch/local.sh 4 --config=configs/pretrain.py:small --config.data.store=stores/mimic --config.mesh.fsdp=4
set -euo pipefail

run=(exec)
show() { printf '%q ' "$@"; echo; }
if [ "${1:-}" = --dry-run ]; then
    run=(show)
    shift
fi
if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: N=${1:-}: must be a number of devices; usage: launch/local.sh [--dry-run] N FLAGS..." >&2
    exit 2
fi
devices=$1
shift

gpus=$( (nvidia-smi -L 2>/dev/null || true) | grep -c '^GPU' || true)
if [ "$gpus" -eq 0 ]; then
    settings=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
elif [ "$gpus" -ge "$devices" ]; then
    settings=("CUDA_VISIBLE_DEVICES=$(seq -s, 0 $((devices - 1)))")
else
    echo "error: N=$devices: this machine has $gpus GPUs" >&2
    exit 2
fi
"${run[@]}" env "${settings[@]}" "${PYTHON:-python}" -m lamae_jax.main "$@"
