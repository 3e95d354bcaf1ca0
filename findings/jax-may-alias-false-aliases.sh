#!/usr/bin/env bash
# jax.device_put(x, may_alias=False) shares the memory of some NumPy arrays with JAX on a CPU.
#
# Versions:  jax 0.10.2 (and 0.12.0.1 on Python 3.12: the same)
# Expected:  By its documentation x is copied with may_alias=False. So a buffer may be refilled with
#            the next batch as soon as the transfer is done.
# Seen:      An array whose memory begins at a multiple of 64 bytes is not copied: refilling the
#            buffer changes the array on the device. Where memory begins is up to the allocator,
#            so one program may be right for one size of batch and wrong for another. jnp.array
#            copies always.
# Output:
#   jax 0.10.2
#   buffer at a multiple of 64: holds 1.0, after the buffer was refilled 2.0
#   buffer 32 bytes further:    holds 1.0, after the buffer was refilled 1.0
#   jnp.array, multiple of 64:  holds 1.0, after the buffer was refilled 1.0
#   as described
set -euo pipefail
export JAX_PLATFORMS=cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$tmp/venv/bin/python" - <<'EOF'
import sys
import jax
import jax.numpy as jnp
import numpy as np

print(f"jax {jax.__version__}")
memory = np.zeros(4096 + 128, np.uint8)
aligned = -memory.ctypes.data % 64
seen = []
for label, offset, put in (
    ("buffer at a multiple of 64:", 0, lambda x: jax.device_put(x, may_alias=False)),
    ("buffer 32 bytes further:   ", 32, lambda x: jax.device_put(x, may_alias=False)),
    ("jnp.array, multiple of 64: ", 0, jnp.array),
):
    buffer = memory[aligned + offset:][:4096].view(np.float32)
    buffer[:] = 1
    on_device = put(buffer).block_until_ready()
    before = float(on_device[0])
    buffer[:] = 2
    seen.append((before, float(on_device[0])))
    print(f"{label} holds {before}, after the buffer was refilled {seen[-1][1]}")
if seen != [(1.0, 2.0), (1.0, 1.0), (1.0, 1.0)]:
    sys.exit("changed: which arrays share memory is different now")
print("as described")
EOF
