#!/usr/bin/env bash
# Orbax compares no shapes when the target of a restore is made of NumPy arrays.
#
# Versions:  orbax-checkpoint 0.12.8, jax 0.10.2
# Expected:  StandardCheckpointer.restore is strict by default: where the stored shape differs from
#            the target's it raises. It does so for a target of JAX arrays.
# Seen:      With a NumPy target of another length, or another number of dimensions, the stored
#            array comes back without a word. Its dtype, in contrast, is made the target's, also
#            where that cuts off fractions, for targets of both kinds.
# Output:
#   orbax-checkpoint 0.12.8, jax 0.10.2
#   stored: float32 [0.  1.7 3.4 5.1]
#   jax   target float32(3,): ValueError: Requested shape: (3,) is not compatible
#   numpy target float32(3,): float32 [0.  1.7 3.4 5.1]
#   numpy target float32(2, 2): float32 [0.  1.7 3.4 5.1]
#   numpy target int8(4,): int8 [0 1 3 5]
#   jax   target int8(4,): int8 [0 1 3 5]
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
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.CRITICAL)
print(f"orbax-checkpoint {version('orbax-checkpoint')}, jax {version('jax')}")
stored = np.array([0, 1.7, 3.4, 5.1], np.float32)
path = pathlib.Path("checkpoint").absolute()
seen = []
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, {"w": stored})
    checkpointer.wait_until_finished()
    print(f"stored: {stored.dtype} {stored}")
    for kind, shape, dtype in (
        (jnp, (3,), "float32"), (np, (3,), "float32"), (np, (2, 2), "float32"),
        (np, (4,), "int8"), (jnp, (4,), "int8"),
    ):
        try:
            back = checkpointer.restore(path, {"w": kind.zeros(shape, dtype)})["w"]
            seen.append(f"{back.dtype} {np.asarray(back)}")
        except ValueError as error:
            seen.append(f"ValueError: {str(error)[:39]}")
        print(f"{'jax  ' if kind is jnp else 'numpy'} target {dtype}{shape}: {seen[-1]}")
whole, cut = f"float32 {stored}", "int8 [0 1 3 5]"
if not (seen[0].startswith("ValueError") and seen[1:] == [whole, whole, cut, cut]):
    sys.exit("changed: shapes or dtypes are handled otherwise now")
print("as described")
EOF
