"""Augmentation on the device: a pure function of one image and its key.

The key is derived from (seed, epoch, example index), so a view does not depend on the number of
devices, on the batch an example falls into, or on where a run was resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.types import Batch


@dataclass(frozen=True, kw_only=True)
class PadCrop:
    """Pad the raw image with zeros on every side and cut a random window of the original size."""

    padding: int = 4
    """Pixels added to each side."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        p = self.padding
        row, column = jax.random.randint(key, (2,), 0, 2 * p + 1)
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirror left and right."""

    probability: float = 0.5
    """How often, in [0, 1]."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


Augmentation = PadCrop | Flip

VIEWS = 1
"""Stream of the seed that views are drawn from; initial weights use another."""


def augment(transforms: Sequence[Augmentation], seed: Array | int, batch: Batch) -> Batch:
    """The batch with every image seen through its own random view."""
    if not transforms:
        return batch

    def view(image: Array, index: Array, epoch: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), VIEWS)
        key = jax.random.fold_in(jax.random.fold_in(key, epoch), index)
        for i, transform in enumerate(transforms):
            image = transform(jax.random.fold_in(key, i), image)
        return image

    return batch._replace(image=jax.vmap(view)(batch.image, batch.index, batch.epoch))
