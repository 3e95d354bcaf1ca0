#!/usr/bin/env bash
# One NaN among the metrics makes Orbax delete the best checkpoint.
#
# Versions:  orbax-checkpoint 0.12.8, jax 0.10.2
# Expected:  With best_fn, quality decides which checkpoints are kept. A step whose metric is NaN,
#            because training diverged there, is the worst one, or is refused.
# Seen:      Steps are sorted by metric. NaN compares false with everything, so it stays where its
#            step stood, and the last of the order counts as the best: with accuracies 0.9, NaN, 0.1
#            and one checkpoint to keep, NaN replaces 0.9, and then 0.1 replaces NaN. A last NaN is
#            best_step() whether the maximum or the minimum is asked for.
# Output:
#   orbax-checkpoint 0.12.8, jax 0.10.2
#   max_to_keep=1, max of 0.9 nan 0.1: kept step [3], best_step() 3
#   max_to_keep=None, max of 0.9 0.1 nan: kept step [1, 2, 3], best_step() 3
#   max_to_keep=None, min of 0.9 0.1 nan: kept step [1, 2, 3], best_step() 3
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
nan, seen = float("nan"), []
for keep, mode, metrics in (
    (1, "max", (0.9, nan, 0.1)), (None, "max", (0.9, 0.1, nan)), (None, "min", (0.9, 0.1, nan))
):
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, best_fn=lambda m: m["accuracy"], best_mode=mode
    )
    folder = pathlib.Path(f"run{len(seen)}").absolute()
    with ocp.CheckpointManager(folder, options=options) as manager:
        for step, value in enumerate(metrics, 1):
            manager.save(step, args=ocp.args.StandardSave({"w": np.ones(2)}),
                         metrics={"accuracy": value})
            manager.wait_until_finished()
        seen.append((manager.all_steps(), manager.best_step()))
    print(f"max_to_keep={keep}, {mode} of {' '.join(map(str, metrics))}: "
          f"kept step {seen[-1][0]}, best_step() {seen[-1][1]}")
if seen != [([3], 3), ([1, 2, 3], 3), ([1, 2, 3], 3)]:
    sys.exit("changed: NaN is ranked otherwise now")
print("as described")
EOF
