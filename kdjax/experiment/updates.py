"""What is done to gradients and updates by the paths of parameters: decay, rates, clipping."""

import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import optax
from jaxtyping import Array

Decay = Literal["all", "kernels"]
"""What weight decay touches: every array that is trained, or kernels alone: those of two or more
axes that are no tokens, positions or scales, as in timm and DeiT."""

Share = Callable[[str], float]
"""From the path of a parameter, `student/stem/kernel`, to what a number is multiplied by there."""

NO_KERNEL = re.compile(r"token|position|scale|pos_embed|relative_bias")
"""In the paths of arrays that have two or more axes and are no kernels."""


def everywhere(path: str) -> float:
    """The share of all parameters that are treated alike."""
    del path
    return 1.0


def decayed(weight_decay: float, decay: Decay, share: Share) -> optax.GradientTransformation:
    """Adds `weight_decay · share(path) · parameter` to the updates of what decays."""

    def update(updates: Any, params: Any) -> Any:
        def one(path: Any, update: Array, parameter: Array) -> Array:
            factor = weight_decay * share(path_of(path))
            if decay == "all" or is_kernel(path_of(path), parameter):
                return update + factor * parameter
            return update

        return jax.tree_util.tree_map_with_path(one, updates, params)

    return optax.stateless(update)


def scaled(share: Share) -> optax.GradientTransformation:
    """Multiplies updates by the share of their paths: learning rates that differ."""

    def update(updates: Any, params: Any) -> Any:
        del params

        def one(path: Any, update: Array) -> Array:
            return update * share(path_of(path))

        return jax.tree_util.tree_map_with_path(one, updates)

    return optax.stateless(update)


def clipped_apart(norm: float) -> optax.GradientTransformation:
    """Scales the gradients of the network, and those of adapters, down to this global norm each."""

    def update(updates: Any, params: Any) -> Any:
        del params
        clip = optax.clip_by_global_norm(norm)
        return {of: clip.update(part, optax.EmptyState())[0] for of, part in updates.items()}

    return optax.stateless(update)


def is_kernel(path: str, parameter: Array) -> bool:
    """Whether an array is one that `decay="kernels"` touches."""
    return parameter.ndim > 1 and (path.endswith("/kernel") or not NO_KERNEL.search(path))


def path_of(keys: Any) -> str:
    """`student/stem/kernel`: what JAX calls the way to a leaf."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")
