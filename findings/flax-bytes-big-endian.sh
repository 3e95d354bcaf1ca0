#!/usr/bin/env bash
# flax.serialization writes a big-endian array and reads it with its bytes swapped.
#
# Versions:  flax 0.12.8, jax 0.10.2, numpy 2.4.6
# Expected:  from_bytes(to_bytes(x)) is x for any plain NumPy array, in whatever byte order, or
#            to_bytes refuses it. np.save and Orbax keep such arrays right.
# Seen:      The name of the dtype is written, "int32", which says nothing of the byte order, and
#            the bytes as they lie. 0 to 3, read from a format whose numbers are big-endian, come
#            back as multiples of 16,777,216.
# Output:
#   flax 0.12.8, numpy 2.4.6
#   written >i4 [0 1 2 3]
#   read    int32 [0 16777216 33554432 50331648]
#   as described
set -euo pipefail
export JAX_PLATFORMS=cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 \
    optax==0.2.8 orbax-checkpoint==0.12.8
"$tmp/venv/bin/python" - <<'EOF'
import sys
import flax
import numpy as np
from flax import serialization

print(f"flax {flax.__version__}, numpy {np.__version__}")
labels = np.frombuffer(bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]), ">i4")
back = serialization.from_bytes({"labels": labels}, serialization.to_bytes({"labels": labels}))
print(f"written {labels.dtype} [{' '.join(map(str, labels))}]")
print(f"read    {back['labels'].dtype} [{' '.join(map(str, back['labels']))}]")
if back["labels"].tolist() != [number << 24 for number in range(4)]:
    sys.exit("changed: the bytes are no longer swapped")
print("as described")
EOF
