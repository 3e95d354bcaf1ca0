#!/usr/bin/env bash
# An Orbax manager replaces a step that another manager has saved since it was made.
#
# Versions:  orbax-checkpoint 0.12.8, jax 0.10.2
# Expected:  CheckpointManager.save says that it raises ValueError if the checkpoint exists, and
#            that not even force=True overwrites one.
# Seen:      A manager reads its folder once, when it is made. For a step that came later it asks
#            its memory, not the disk: save() returns True and the older checkpoint is gone. A third
#            manager, made afterwards, refuses the same save as documented.
# Output:
#   orbax-checkpoint 0.12.8, jax 0.10.2
#   second manager saves step 1: True; first manager, made before: True
#   step 1 now holds [2. 2.], it held [1. 1.]
#   a manager made now: StepAlreadyExistsError: Checkpoint for step 1 already exists.
#   as described
set -euo pipefail
export JAX_PLATFORMS=cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$tmp"
"$tmp/venv/bin/python" - <<'EOF'
import logging, pathlib, sys
from importlib.metadata import version
import numpy as np
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.ERROR)
print(f"orbax-checkpoint {version('orbax-checkpoint')}, jax {version('jax')}")

def save(manager, value):
    saved = manager.save(1, args=ocp.args.StandardSave({"w": np.full(2, value)}), force=True)
    manager.wait_until_finished()
    return saved

def held():
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder / "1" / "default")["w"]

folder = pathlib.Path("run").absolute()
with ocp.CheckpointManager(folder) as first, ocp.CheckpointManager(folder) as second:
    by_second, before = save(second, 1.0), held()
    by_first, after = save(first, 2.0), held()
print(f"second manager saves step 1: {by_second}; first manager, made before: {by_first}")
print(f"step 1 now holds {after}, it held {before}")
with ocp.CheckpointManager(folder) as third:
    try:
        refused = f"returned {save(third, 3.0)}"
    except ValueError as error:
        refused = f"{type(error).__name__}: {error}"
print(f"a manager made now: {refused}")
if not (by_second and by_first and after[0] == 2.0 and "already exists" in refused):
    sys.exit("changed: the manager made first no longer replaces the step")
print("as described")
EOF
