"""Mixtures of each image with the next one of the global batch, on whatever device that is."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.checks import require
from kdjax.data.augment.base import Transform, require_probability, unit
from kdjax.data.augment.geometry import inside
from kdjax.types import AXIS, Batch


@dataclass(frozen=True, kw_only=True)
class Mixup(Transform):
    """Mix every image with the next one of the global batch (Zhang et al., 2018, arXiv:1710.09412).

    `share · image + (1 - share) · next image`, with a `share` of its own for every example, drawn
    from Beta(alpha, alpha). The result is float32 in [0, 1]: nothing is rounded.
    """

    mixes: ClassVar[bool] = True

    alpha: float = 1.0
    """Of the Beta distribution; 1: all shares alike, smaller: mostly near 0 and 1."""
    probability: float = 1.0
    """How often an image is mixed at all, in [0, 1]."""

    def apply(self, keys: Array, batch: Batch) -> Batch:
        """The batch of one device, with `other_label` and `share`; the axis AXIS is bound."""
        share = jax.vmap(_share, (0, None, None))(keys, self.alpha, self.probability)
        weight = share[:, None, None, None]
        image = weight * unit(batch.image) + (1 - weight) * unit(_next(batch.image))
        return batch._replace(image=image, other_label=_next(batch.label), share=share)

    def check(self) -> None:
        """There is a Beta distribution, and a probability."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class CutMix(Transform):
    """Paste a rectangle of the next image of the global batch (Yun et al., 2019, arXiv:1905.04899).

    It has the image's proportions and `1 - Beta(alpha, alpha)` of its area; its centre is any
    pixel, and what lies outside is cut off. `share` is what is left of the image, counted in
    pixels. Every example has a rectangle of its own.
    """

    mixes: ClassVar[bool] = True

    alpha: float = 1.0
    """Of the Beta distribution; 1: all areas alike, smaller: mostly near nothing and everything."""
    probability: float = 1.0
    """How often an image is mixed at all, in [0, 1]."""

    def apply(self, keys: Array, batch: Batch) -> Batch:
        """The batch of one device, with `other_label` and `share`; the axis AXIS is bound."""
        pasted = jax.vmap(self._pasted, (0, None))(keys, batch.image.shape[1:])
        share = 1 - pasted.mean(axis=(1, 2, 3), dtype=jnp.float32)
        image = jnp.where(pasted, _next(batch.image), batch.image)
        return batch._replace(image=image, other_label=_next(batch.label), share=share)

    def _pasted(self, key: Array, shape: tuple[int, ...]) -> Array:
        """`[H, W, 1]`: which pixels are the next image's."""
        of_share, of_centre = jax.random.split(key)
        whole = jnp.asarray(shape[:2])
        share = _share(of_share, self.alpha, self.probability)
        size = (whole * jnp.sqrt(1 - share)).astype(jnp.int32)
        start = jax.random.randint(of_centre, (2,), 0, whole) - size // 2
        return inside(shape, start, start + size)

    def check(self) -> None:
        """There is a Beta distribution, and a probability."""
        _check(self)


def _share(key: Array, alpha: float, probability: float) -> Array:
    of_share, of_whether = jax.random.split(key)
    share = jax.random.beta(of_share, alpha, alpha)
    return jnp.where(jax.random.bernoulli(of_whether, probability), share, 1.0)


def _next(x: Array) -> Array:
    """Of each example the next in the global batch, of the last the first: one travels a device."""
    devices = jax.lax.axis_size(AXIS)
    first = jax.lax.ppermute(x[:1], AXIS, [(d, (d - 1) % devices) for d in range(devices)])
    return jnp.concatenate([x[1:], first])


def _check(mixing: Mixup | CutMix) -> None:
    require("alpha", mixing.alpha, mixing.alpha > 0, "positive")
    require_probability(mixing.probability)
