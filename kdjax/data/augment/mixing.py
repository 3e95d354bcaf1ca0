"""Mixtures of each image with that of the next example of the global batch, on whatever device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from kdjax.checks import require
from kdjax.data.augment.base import Transform, require_probability, unit
from kdjax.data.augment.geometry import inside
from kdjax.types import AXIS, Batch


@dataclass(frozen=True, kw_only=True)
class Mixup(Transform):
    """Mix every image with the next example's in the batch (Zhang et al., 2018, arXiv:1710.09412).

    `share · image + (1 - share) · other image`, with a `share` of its own for every example, drawn
    from Beta(alpha, alpha). The result is float32 in [0, 1]: nothing is rounded.
    """

    mixes: ClassVar[bool] = True

    alpha: float = 1.0
    """Of the Beta distribution; 1: all shares alike, smaller: mostly near 0 and 1."""
    probability: float = 1.0
    """How often an image is mixed at all, in [0, 1]."""

    def apply(self, keys: Array, batch: Batch, views: int) -> Batch:
        """The batch of one device, with `other_label` and `share`; the axis AXIS is bound."""
        other = partners(batch.index, views)
        share = jax.vmap(_share, (0, None, None))(keys, self.alpha, self.probability)
        weight = share[:, None, None, None]
        image = weight * unit(batch.image) + (1 - weight) * unit(other(batch.image))
        return batch._replace(image=image, other_label=other(batch.label), share=share)

    def check(self) -> None:
        """There is a Beta distribution, and a probability."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class CutMix(Transform):
    """Paste a rectangle of the next example's image (Yun et al., 2019, arXiv:1905.04899).

    It has the image's proportions and `1 - Beta(alpha, alpha)` of its area; its centre is any
    pixel, and what lies outside is cut off. `share` is what is left of the image, counted in
    pixels. Every example has a rectangle of its own.
    """

    mixes: ClassVar[bool] = True

    alpha: float = 1.0
    """Of the Beta distribution; 1: all areas alike, smaller: mostly near nothing and everything."""
    probability: float = 1.0
    """How often an image is mixed at all, in [0, 1]."""

    def apply(self, keys: Array, batch: Batch, views: int) -> Batch:
        """The batch of one device, with `other_label` and `share`; the axis AXIS is bound."""
        other = partners(batch.index, views)
        pasted = jax.vmap(self._pasted, (0, None))(keys, batch.image.shape[1:])
        share = 1 - pasted.mean(axis=(1, 2, 3), dtype=jnp.float32)
        image = jnp.where(pasted, other(batch.image), batch.image)
        return batch._replace(image=image, other_label=other(batch.label), share=share)

    def _pasted(self, key: Array, shape: tuple[int, ...]) -> Array:
        """`[H, W, 1]`: which pixels are the other image's."""
        of_share, of_centre = jax.random.split(key)
        return _rectangle(of_centre, _share(of_share, self.alpha, self.probability), shape)

    def check(self) -> None:
        """There is a Beta distribution, and a probability."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class MixupOrCutMix(Transform):
    """Of each example by chance `Mixup` or `CutMix`, with the next one in the batch.

    Chances, shares and rectangles are those of timm's `Mixup(mode="elem")`, whose partner is the
    example as far from the other end of the batch. Its default mode, "batch", draws once for a
    whole batch; here, as everywhere, each example draws for itself, whatever batch it falls into:
    its own chances are the same, and no batch is all of one kind. The result is float32 in [0, 1]:
    nothing is rounded.
    """

    mixes: ClassVar[bool] = True

    mixup_alpha: float = 0.8
    """Of the Beta distribution of the shares of `Mixup`."""
    cutmix_alpha: float = 1.0
    """Of the Beta distribution of what `CutMix` leaves."""
    probability: float = 1.0
    """How often an image is mixed at all, in [0, 1]."""
    switch_probability: float = 0.5
    """How often it is `CutMix` of those that are mixed, in [0, 1]."""

    def apply(self, keys: Array, batch: Batch, views: int) -> Batch:
        """The batch of one device, with `other_label` and `share`; the axis AXIS is bound."""
        other = partners(batch.index, views)
        weight, share = jax.vmap(self._drawn, (0, None))(keys, batch.image.shape[1:])
        image = weight * unit(batch.image) + (1 - weight) * unit(other(batch.image))
        return batch._replace(image=image, other_label=other(batch.label), share=share)

    def _drawn(self, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """`[H, W, 1]`, how much of each pixel is the image's own, and the mean of it."""
        of_kind, of_share, of_centre = jax.random.split(key, 3)
        cuts = jax.random.bernoulli(of_kind, self.switch_probability)
        alpha = jnp.where(cuts, self.cutmix_alpha, self.mixup_alpha)
        share = _share(of_share, alpha, self.probability)
        kept = 1 - _rectangle(of_centre, share, shape).astype(jnp.float32)
        return jnp.where(cuts, kept, share), jnp.where(cuts, kept.mean(), share)

    def check(self) -> None:
        """There are two Beta distributions, and two probabilities."""
        for name in ("mixup_alpha", "cutmix_alpha"):
            require(name, getattr(self, name), getattr(self, name) > 0, "positive")
        require_probability(self.probability)
        require_probability(self.switch_probability, "switch_probability")


def _share(key: Array, alpha: Array | float, probability: float) -> Array:
    of_share, of_whether = jax.random.split(key)
    share = jax.random.beta(of_share, alpha, alpha)
    return jnp.where(jax.random.bernoulli(of_whether, probability), share, 1.0)


def _rectangle(key: Array, share: Array, shape: tuple[int, ...]) -> Array:
    """`[H, W, 1]`: which pixels are the other image's, `1 - share` of all but for the border's."""
    whole = jnp.asarray(shape[:2])
    size = (whole * jnp.sqrt(1 - share)).astype(jnp.int32)
    start = jax.random.randint(key, (2,), 0, whole) - size // 2
    return inside(shape, start, start + size)


def partners(index: Array, views: int) -> Callable[[Array], Array]:
    """What finds, for whatever a device holds of the global batch, that of each one's partner.

    `views` of an example follow each other, and the partner is the same view of the next example.
    Where that is the same example, at an end of the batch or of an epoch or where it was drawn
    again, it is the next place that another one has. An example is mixed with itself only where it
    fills the batch, or was drawn three times in a row.
    """
    # A batch of permutations is no larger than one, so it has an example's views of two at most.
    reach = 2 * views
    steps = np.array([views, *range(1, reach + 1)])
    place = np.arange(len(index))[:, None] + steps
    is_another = _onward(index, reach)[place] != index[:, None]
    partner = jnp.take_along_axis(place, is_another.argmax(axis=1, keepdims=True), axis=1)[:, 0]
    return lambda x: jnp.take(_onward(x, reach), partner, axis=0, mode="clip")


def _onward(x: Array, reach: int) -> Array:
    """What this device holds, and so many more of the global batch; after the last the first."""
    devices, held = jax.lax.axis_size(AXIS), len(x)
    parts = [x]
    for k in range(1, -(-reach // held) + 1):
        from_kth = [(d, (d - k) % devices) for d in range(devices)]
        parts.append(jax.lax.ppermute(x[: reach - (k - 1) * held], AXIS, from_kth))
    return jnp.concatenate(parts)


def _check(mixing: Mixup | CutMix) -> None:
    require("alpha", mixing.alpha, mixing.alpha > 0, "positive")
    require_probability(mixing.probability)
