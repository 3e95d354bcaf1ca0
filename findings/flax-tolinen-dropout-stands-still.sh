#!/usr/bin/env bash
# nnx.Dropout within ToLinen drops the same numbers for ever where the caller hands it no key.
#
# Versions:  flax 0.12.8, jax 0.10.2
# Expected:  a layer that is asked to drop and finds no key for it says so, as Linen's Dropout does
#            (InvalidRngError); or a key of another name serves, and another one drops other numbers.
# Seen:      `apply` without a `dropout` key answers, and drops the same numbers whatever key of
#            another name is given, or none: a training step that forgot it trains with a fixed mask.
# Output:
#   flax 0.12.8, jax 0.10.2
#   Linen, no key: InvalidRngError
#   ToLinen, dropout keys 1 2 3: 3 masks
#   ToLinen, params keys 1 2 3 and none: 1 mask, some numbers dropped
#   as described
set -euo pipefail
export JAX_PLATFORMS=cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$tmp/venv/bin/python" - <<'EOF'
import sys
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

print(f"flax {flax.__version__}, jax {jax.__version__}")


class Drop(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layer(x, deterministic=False)


ones = jnp.ones((1, 32))
try:
    nn.Dropout(0.5, deterministic=False).apply({}, ones)
    linen = "an answer"
except flax.errors.InvalidRngError as error:
    linen = type(error).__name__
print(f"Linen, no key: {linen}")

wrapped = nnx.bridge.ToLinen(Drop)
first = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
variables = wrapped.init(first, ones)


def masks(name, seeds):
    rngs = [{name: jax.random.key(seed)} if seed else {} for seed in seeds]
    return {tuple(wrapped.apply(variables, ones, rngs=keys)[0].tolist()) for keys in rngs}


given, other = masks("dropout", (1, 2, 3)), masks("params", (1, 2, 3, 0))
print(f"ToLinen, dropout keys 1 2 3: {len(given)} masks")
dropped = "some" if any(0.0 in mask for mask in other) else "no"
count = f"{len(other)} mask" + "s" * (len(other) > 1)
print(f"ToLinen, params keys 1 2 3 and none: {count}, {dropped} numbers dropped")
if (linen, len(given), len(other), dropped) != ("InvalidRngError", 3, 1, "some"):
    sys.exit("changed: a missing key is noticed, or other numbers are dropped")
print("as described")
EOF
