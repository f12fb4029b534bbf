#!/usr/bin/env bash
# Rehearse a job of two hosts on this machine: two processes with four virtual CPU devices each, joined as on a cluster. A mesh
# that does not fit, a batch that does not divide, a store in the wrong place show here in a minute. Nothing gets faster.
#
#   launch/rehearsal.sh [--dry-run] [--workdir=DIR] [FLAGS...]
#   launch/rehearsal.sh --config=configs/pretrain.py:small,hz100 --config.data.store=stores/ptb_xl100 --config.mesh.fsdp=4
#
# Without FLAGS: twenty steps of nano at 100 Hz on simulated ECGs, prepared first. FLAGS come after the defaults below and win.
# DIR (runs/rehearsal) then holds store/, run/ (the workdir of both) and process-1.log; process 0 speaks here, and at the end
# the summary is shown. Ctrl-C and SIGTERM are passed on to both as SIGTERM: they save at one step and end with 75, and the same
# line goes on. To see one host fail, kill its process: of process 1 the other says so within 100 s; without process 0, which
# holds them together, the runtime aborts the other at once. The exit code is the first that is not 0.
set -euo pipefail

dry=
show() { printf '%q ' "$@"; echo; }
if [ "${1:-}" = --dry-run ]; then
    dry=yes
    shift
fi
workdir=runs/rehearsal given=() store=
for flag in "$@"; do
    case $flag in
        --workdir=?*) workdir=${flag#*=} ;;
        --config.data.store=*) store=${flag#*=} given+=("$flag") ;;
        --config=* | --config.*=*) given+=("$flag") ;;
        *)
            echo "error: $flag: not understood; usage: launch/rehearsal.sh [--dry-run] [--workdir=DIR] [--config.FIELD=VALUE ...]" >&2
            exit 2
            ;;
    esac
done
main=("${PYTHON:-python}" -m lamae_jax.main)

if [ -z "$store" ]; then
    given+=("--config.data.store=$workdir/store")
    ${dry:+show} "${main[@]}" --config=configs/prepare.py:simulated --config.source="$workdir/recordings" --config.store="$workdir/store" \
        --config.fs=100 --config.simulated_patients=200 --config.workers=2 --workdir="$workdir/prepare"
fi

# 16 records a step over 8 devices: parameters split over the devices of a process, the batch over all.
train=("${main[@]}" "--config=configs/pretrain.py:nano,hz100" --config.steps=20 --config.batch_size=16 --config.mesh.fsdp=4
    --config.log_every=5 --config.eval_every=10 --config.eval_records=64 "${given[@]}" --workdir="$workdir/run")
port=$("${PYTHON:-python}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
host=(env JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=4"
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" JAX_NUM_PROCESSES=2)
if [ -n "$dry" ]; then
    show "${host[@]}" JAX_PROCESS_ID=0 "${train[@]}"
    show "${host[@]}" JAX_PROCESS_ID=1 "${train[@]}"
    exit
fi

mkdir -p "$workdir"
"${host[@]}" JAX_PROCESS_ID=0 "${train[@]}" &
pids=($!)
"${host[@]}" JAX_PROCESS_ID=1 "${train[@]}" > "$workdir/process-1.log" 2>&1 &
pids+=($!)
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true' INT TERM
alive() { kill -0 "${pids[$1]}" 2> /dev/null; }

while alive 0 && alive 1; do sleep 1 || true; done
first=0 code=0 last=0
if alive 0; then first=1; fi
wait "${pids[first]}" || code=$?
# After a failure the other has 120 s to notice and to say so, which is more than it should need.
for ((s = 0; code == 0 || s < 120; s++)); do
    alive $((1 - first)) || break
    sleep 1 || true
done
kill -KILL "${pids[1 - first]}" 2> /dev/null || true
wait "${pids[1 - first]}" || last=$?
if [ "$code" -eq 0 ]; then code=$last; fi

if [ "$code" -eq 0 ]; then
    cat "$workdir/run/summary.json"
elif [ "$code" -ne 75 ]; then
    echo "process $first ended first; process-1.log ends with:" >&2
    tail -n 3 "$workdir/process-1.log" >&2
fi
exit "$code"
