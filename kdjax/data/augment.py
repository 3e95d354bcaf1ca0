"""Augmentation on the device: a pure function of an image and its key, and of its neighbour.

The key is derived from (seed, view number, example index), so a view does not depend on the number
of devices, on the batch an example falls into, or on where a run was resumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.types import AXIS, Batch


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


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Stretch a random window to the size of the image (Szegedy et al., 2015, arXiv:1409.4842).

    Its share of the area is uniform in `scale`, the logarithm of width over height is uniform in
    that of `ratio`, no side is longer than the image's, and it lies anywhere inside. Pixels are
    interpolated linearly; those at its edges see their neighbours outside of it.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the area, in (0, 1]."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width over height."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        of_area, of_ratio, of_place = jax.random.split(key, 3)
        whole = jnp.asarray(image.shape[:2], jnp.float32)
        low, high = self.scale
        area = jax.random.uniform(of_area, minval=low, maxval=high) * whole.prod()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = jnp.exp(jax.random.uniform(of_ratio, minval=low, maxval=high))
        window = jnp.minimum(jnp.sqrt(jnp.stack([area / ratio, area * ratio])), whole)
        corner = jax.random.uniform(of_place, (2,)) * (whole - window)
        zoom = whole / window
        view = jax.image.scale_and_translate(
            image.astype(jnp.float32), image.shape, (0, 1), zoom, -corner * zoom, "linear"
        )
        return (jnp.round(view) if image.dtype == jnp.uint8 else view).astype(image.dtype)


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """Mix every image with the next one of the global batch (Zhang et al., 2018, arXiv:1710.09412).

    `share · image + (1 - share) · next image`, with a `share` of its own for every example, drawn
    from Beta(alpha, alpha). The result is float32 in [0, 1]: nothing is rounded.
    """

    alpha: float = 1.0
    """Of the Beta distribution; 1: all shares alike, smaller: mostly near 0 and 1."""
    probability: float = 1.0
    """How often an image is mixed at all, in [0, 1]."""

    def __call__(self, keys: Array, batch: Batch) -> Batch:
        """The batch of one device, with `other_label` and `share`; the axis AXIS is bound."""
        share = jax.vmap(self._share)(keys)
        other, label = _next(batch.image), _next(batch.label)
        weight = share[:, None, None, None]
        image = weight * _unit(batch.image) + (1 - weight) * _unit(other)
        return batch._replace(image=image, other_label=label, share=share)

    def _share(self, key: Array) -> Array:
        of_share, of_whether = jax.random.split(key)
        share = jax.random.beta(of_share, self.alpha, self.alpha)
        return jnp.where(jax.random.bernoulli(of_whether, self.probability), share, 1.0)


def _next(x: Array) -> Array:
    """Of each example the next in the global batch, of the last the first: one travels a device."""
    devices = jax.lax.axis_size(AXIS)
    first = jax.lax.ppermute(x[:1], AXIS, [(d, (d - 1) % devices) for d in range(devices)])
    return jnp.concatenate([x[1:], first])


def _unit(image: Array) -> Array:
    return image / 255.0 if image.dtype == jnp.uint8 else image


Augmentation = PadCrop | Flip | RandomResizedCrop | Mixup

VIEWS, TEACHER_VIEWS = 1, 3
"""Streams of the seed that views are drawn from; initial weights and losses use others."""


def augment(
    transforms: Sequence[Augmentation], seed: Array | int, batch: Batch, stream: int = VIEWS
) -> Batch:
    """The batch with every image seen through its own random view.

    `batch` is what one device holds of a global batch; mixing needs the axis AXIS.
    """
    if not transforms:
        return batch

    def key_of(index: Array, view: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), stream)
        return jax.random.fold_in(jax.random.fold_in(key, view), index)

    keys = jax.vmap(key_of)(batch.index, batch.view)
    for i, transform in enumerate(transforms):
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        if isinstance(transform, Mixup):
            batch = transform(own, batch)
        else:
            batch = batch._replace(image=jax.vmap(transform)(own, batch.image))
    return batch
