#!/usr/bin/env bash
# Orbax writes {"ema.head": a, "ema": {"head": b}} and gives b back for both.
#
# Versions:  orbax-checkpoint 0.12.8, jax 0.10.2
# Expected:  Different leaves of a tree are stored apart, whatever their names; or a clash of names
#            is refused.
# Seen:      The path of a leaf is joined with dots to a name on disk, so a dot within a key and a
#            level of nesting are the same. Saving raises nothing, one array overwrites the other,
#            and restoring, with or without a target, gives one of them twice.
# Output:
#   orbax-checkpoint 0.12.8, jax 0.10.2
#   saved    ema.head = [1. 1.], ema: head = [7. 7.]
#   restored ema.head = [7. 7.], ema: head = [7. 7.]
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
tree = {"ema.head": np.full(2, 1.0), "ema": {"head": np.full(2, 7.0)}}
path = pathlib.Path("checkpoint").absolute()
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, tree)
    checkpointer.wait_until_finished()
    back = checkpointer.restore(path, tree)
    untargeted = checkpointer.restore(path)
for word, t in ("saved   ", tree), ("restored", back):
    print(f"{word} ema.head = {t['ema.head']}, ema: head = {t['ema']['head']}")
for t in back, untargeted:
    if not np.array_equal(t["ema.head"], t["ema"]["head"]):
        sys.exit("changed: the two leaves are no longer stored in one place")
print("as described")
EOF
