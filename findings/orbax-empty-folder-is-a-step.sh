#!/usr/bin/env bash
# An empty folder with a number for a name is a checkpoint to Orbax's manager.
#
# Versions:  orbax-checkpoint 0.12.8, jax 0.10.2
# Expected:  A step is what save() finished: steps appear under their number only once they are
#            whole, so a folder without anything in it is none.
# Seen:      The empty folder is the latest step, save() of a lower step returns False without an
#            error, and max_to_keep counts it, for which a whole checkpoint is deleted.
# Output:
#   orbax-checkpoint 0.12.8, jax 0.10.2
#   an empty folder 5 lies there: save(1) = False, latest_step() = 5
#   saved 1; an empty folder 5 appears; saved 6 with max_to_keep=2: ['5', '6'], files in 5: 0
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

def save(manager, step):
    saved = manager.save(step, args=ocp.args.StandardSave({"w": np.ones(2)}))
    manager.wait_until_finished()
    return saved

first = pathlib.Path("first").absolute()
(first / "5").mkdir(parents=True)
with ocp.CheckpointManager(first) as manager:
    saved, latest = save(manager, 1), manager.latest_step()
print(f"an empty folder 5 lies there: save(1) = {saved}, latest_step() = {latest}")

second = pathlib.Path("second").absolute()
options = ocp.CheckpointManagerOptions(max_to_keep=2)
with ocp.CheckpointManager(second, options=options) as manager:
    save(manager, 1)
(second / "5").mkdir()
with ocp.CheckpointManager(second, options=options) as manager:
    save(manager, 6)
kept = sorted(folder.name for folder in second.iterdir())
inside = len(list((second / "5").iterdir())) if "5" in kept else None
print("saved 1; an empty folder 5 appears; saved 6 with max_to_keep=2: "
      f"{kept}, files in 5: {inside}")
if (saved, latest, kept, inside) != (False, 5, ["5", "6"], 0):
    sys.exit("changed: an empty folder is no longer treated as a step")
print("as described")
EOF
