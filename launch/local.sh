#!/usr/bin/env bash
# One process on this machine over its first N devices: NVIDIA GPUs where there are any, else N virtual CPU devices
# (to try a mesh before paying for one; they share the cores and are no faster).
#
#   launch/local.sh [--dry-run] N FLAGS...
#   launch/local.sh 4 --config=configs/pretrain.py:small --config.data.store=stores/mimic --config.mesh.fsdp=4
#
# Where CUDA_VISIBLE_DEVICES is set, the first N of that list; set to nothing: virtual CPU devices.
#
# The flags that matter:
#   --config.mesh.fsdp   a model that fits one device: leave it at 1, all devices share out the batch (data). Else N.
#   --config.batch_size  of all devices together, a multiple of N; the peak rate follows it from small on
#   --config.dtype       bfloat16 is the default from small on
#   --config.accumulate  where memory is short: a step's batch in so many parts; then --config.model.remat=true
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

# A list that is given is kept to: the other GPUs are someone else's. -1 is one that names none.
here=$( (nvidia-smi -L 2>/dev/null || true) | sed -n 's/^GPU \([0-9]*\):.*/\1/p' | paste -sd, -)
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES-$here}"
if [ "${#gpus[@]}" -eq 0 ] || [ "${gpus[0]}" = -1 ]; then
    settings=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
elif [ "${#gpus[@]}" -ge "$devices" ]; then
    settings=("CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:0:devices}")")
else
    whose=${CUDA_VISIBLE_DEVICES+CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES gives}
    echo "error: N=$devices: ${whose:-this machine has} fewer GPUs" >&2
    exit 2
fi
"${run[@]}" env "${settings[@]}" "${PYTHON:-python}" -m lamae_jax.main "$@"
