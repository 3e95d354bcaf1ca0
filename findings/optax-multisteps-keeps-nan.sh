#!/usr/bin/env bash
# One NaN gradient ends training for good under MultiSteps(apply_if_finite(...)).
#
# Versions:  optax 0.2.8, jax 0.10.2
# Expected:  apply_if_finite leaves out an update that is not finite, and MultiSteps begins a new
#            mean of gradients after each k steps: one bad step costs k steps at most.
# Seen:      MultiSteps empties its mean by multiplying it with 0, and 0 * NaN is NaN: it is NaN for
#            ever. apply_if_finite then leaves out every update, so parameters stay where they
#            are, finite and without an error. With the two the other way round, or with
#            should_skip_update_fn=skip_not_finite, training goes on.
# Output:
#   optax 0.2.8, jax 0.10.2
#   gradients 1 1 nan 1 1 1 1 1, every two averaged, learning rate 1
#   MultiSteps(apply_if_finite): [0, -1, -1, -1, -1, -1, -1, -1]
#   apply_if_finite(MultiSteps): [0, -1, -1, -1, -2, -2, -3, -3]
#   MultiSteps(skip_not_finite): [0, -1, -1, -1, -2, -2, -3, -3]
#   as described
set -euo pipefail
export JAX_PLATFORMS=cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$tmp/venv/bin/python" - <<'EOF'
import sys
import jax
import jax.numpy as jnp
import optax

print(f"optax {optax.__version__}, jax {jax.__version__}")
print("gradients 1 1 nan 1 1 1 1 1, every two averaged, learning rate 1")
sgd, seen = optax.sgd(1.0), []
for label, optimizer in (
    ("MultiSteps(apply_if_finite)", optax.MultiSteps(optax.apply_if_finite(sgd, 100), 2)),
    ("apply_if_finite(MultiSteps)",
     optax.apply_if_finite(optax.MultiSteps(sgd, 2).gradient_transformation(), 100)),
    ("MultiSteps(skip_not_finite)",
     optax.MultiSteps(sgd, 2, should_skip_update_fn=optax.skip_not_finite)),
):
    parameter = jnp.zeros(())
    state, path = optimizer.init(parameter), []
    for gradient in (1.0, 1.0, float("nan"), 1.0, 1.0, 1.0, 1.0, 1.0):
        updates, state = optimizer.update(jnp.float32(gradient), state, parameter)
        parameter = optax.apply_updates(parameter, updates)
        path.append(round(float(parameter)))
    seen.append(path)
    print(f"{label}: {path}")
going_on = [0, -1, -1, -1, -2, -2, -3, -3]
if seen != [[0] + [-1] * 7, going_on, going_on]:
    sys.exit("changed: the parameter moves otherwise after NaN")
print("as described")
EOF
