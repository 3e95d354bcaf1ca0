#!/usr/bin/env bash
# Several processes on this machine: launch/local.sh N [DEVICES] -- kdjax distill PRESET --workdir DIR
# DEVICES fakes that many CPU devices in each process; without it process i gets GPU i.
# One that fails takes the others with it. Exit code: the failure's, if possible not that of a peer
# it killed; else 75 (preempted: run me again) if somebody was told to stop; else 0. Needs bash 5.1.
set -um # -m: a process group for each, so that signals reach whatever a process has started

n=${1-} devices=; shift
[[ ${1-} == -- ]] || { devices=${1-}; shift; }
if [[ ${1-} != -- || $# -lt 2 || ! $n$devices =~ ^[0-9]+$ || $n -lt 1 ]]; then
  echo "usage: launch/local.sh N [DEVICES] -- COMMAND ..." >&2; exit 2
fi
shift
free_port='import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
JAX_COORDINATOR_ADDRESS=127.0.0.1:$(python3 -c "$free_port") || exit
export JAX_COORDINATOR_ADDRESS NNODES=$n
if [[ $devices ]]; then
  # XLA waits for all devices in a collective at once: its thread pool must not be smaller.
  export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices NPROC=$(($(nproc) + 2 * devices))
fi

declare -A running; failed=0 preempted=0
signal() { local p; for p in "${!running[@]}"; do kill -"$1" -- "-$p" 2>/dev/null; done; }
trap 'signal TERM' TERM; trap 'signal INT' INT
for ((i = 0; i < n; i++)); do
  exec {log}> >(trap '' INT TERM; exec sed -u "s/^/[$i] /")
  [[ $devices ]] || export JAX_LOCAL_DEVICE_IDS=$i
  NODE_RANK=$i "$@" >&"$log" 2>&1 </dev/null {log}>&- &
  running[$!]=1; exec {log}>&-
done
while ((${#running[@]})); do
  wait -n -p pid "${!running[@]}"; code=$?
  [[ ${pid-} ]] || continue # a signal came in between
  unset "running[$pid]"
  case $code in 0) continue ;; 75) preempted=75; continue ;; esac
  ((failed == 0 || failed > 128 && code < 128)) && failed=$code; signal KILL
done
wait # for the last lines of output
exit $((failed ? failed : preempted))
