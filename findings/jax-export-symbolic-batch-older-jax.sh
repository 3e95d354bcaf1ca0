#!/usr/bin/env bash
# A jax.export file with a symbolic batch loads under an older JAX and fails when it is called.
#
# Versions:  jax 0.12.0.1 (Python 3.12 or later) writes, jax 0.10.2 reads
# Expected:  A file that the older JAX cannot run is refused by export.deserialize, or all files of
#            one writer fare alike.
# Seen:      The file with a static batch loads and runs. The one with a symbolic batch loads, shows
#            its shapes, and raises at the first call, saying only that StableHLO could not be
#            deserialised: the check of the batch's shape is an operation the older JAX lacks.
#            From 0.10.2 to 0.12.0.1 both work.
# Output:
#   written by jax 0.12.0.1
#   read by jax 0.10.2
#   static:   loads, float32[5,3]; runs
#   symbolic: loads, float32[b,3]; INVALID_ARGUMENT: Failed to deserialize StableHLO
#   as described
# (Two lines of the compiler on the error stream name the operation.)
#
# PYTHON (python3: 3.11 or later) runs the older JAX, PYTHON_NEW (python3.12) the newer.
set -euo pipefail
export JAX_PLATFORMS=cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/old"
"${PYTHON_NEW:-python3.12}" -m venv "$tmp/new"
"$tmp/old/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 flatbuffers==25.12.19
"$tmp/new/bin/pip" install --quiet jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5 flatbuffers==25.12.19
cd "$tmp"
"$tmp/new/bin/python" - <<'EOF'
import pathlib
import jax
from jax import export

print(f"written by jax {jax.__version__}")
for name, batch in ("static", (5,)), ("symbolic", export.symbolic_shape("b")):
    program = jax.jit(lambda x: (x * x).sum(axis=1))
    exported = export.export(program)(jax.ShapeDtypeStruct((*batch, 3), "float32"))
    pathlib.Path(name).write_bytes(exported.serialize())
EOF
"$tmp/old/bin/python" - <<'EOF'
import pathlib, sys
import jax
import numpy as np
from jax import export

print(f"read by jax {jax.__version__}")
seen = {}
for name in "static", "symbolic":
    exported = export.deserialize(bytearray(pathlib.Path(name).read_bytes()))
    try:
        exported.call(np.ones((5, 3), np.float32)).block_until_ready()
        seen[name] = "runs"
    except jax.errors.JaxRuntimeError as error:
        seen[name] = str(error).splitlines()[0]
    print(f"{name + ':':9} loads, {exported.in_avals[0].str_short()}; {seen[name]}")
if seen["static"] != "runs" or "Failed to deserialize" not in seen["symbolic"]:
    sys.exit("changed: both kinds of file fare alike, or fail otherwise")
print("as described")
EOF
