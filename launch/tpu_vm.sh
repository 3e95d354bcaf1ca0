#!/usr/bin/env bash
# A Cloud TPU slice by hand, one process a host: launch/tpu_vm.sh create | run | delete
# Exit 75 of "run", or a slice that was taken: delete and create if it is gone, then run again.
set -euo pipefail

NAME=${NAME:-kdjax}
ZONE=${ZONE:-us-east5-b}
TYPE=${TYPE:-v6e-8}
RUNTIME=${RUNTIME:-v2-alpha-tpuv6e}
PRESET=${PRESET:-configs/digits.py}
WORKDIR=${WORKDIR:-/runs/digits}
# Run first on every host. WORKDIR must outlive the slice, and all hosts must see the same one.
PREPARE=${PREPARE:-"mountpoint -q /runs || (sudo mkdir -p /runs && sudo mount 10.0.0.2:/runs /runs)"}

case ${1-} in
  create)
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
      --accelerator-type="$TYPE" --runtime-version="$RUNTIME" --spot
    state() {
      gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" --format="value(state.state)"
    }
    until [[ $(state) == ACTIVE ]]; do sleep 30; done # in the queue; Ctrl-C leaves it there
    ;;
  run)
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="mkdir -p kdjax"
    gcloud compute tpus tpu-vm scp --recurse ./* "$NAME:kdjax" --zone="$ZONE" --worker=all
    # uv, because the image's own Python is older than 3.11. JAX asks the slice who takes part.
    gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="set -e; $PREPARE
      cd kdjax && python3 -m pip install --quiet uv &&
      python3 -m uv run --python 3.12 --extra tpu kdjax distill '$PRESET' --workdir '$WORKDIR'"
    ;;
  delete) gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet ;;
  *) echo "usage: launch/tpu_vm.sh create | run | delete" >&2; exit 2 ;;
esac
