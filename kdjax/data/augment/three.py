"""DeiT III's three views: without colour, with bright levels inverted, or blurred."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8, UInt32

from kdjax.checks import require
from kdjax.data.augment.colour import ColorJitter
from kdjax.data.augment.operations import grey
from kdjax.data.augment.policies import Policy

BRIGHT = 128
"""Levels from here on are inverted."""
PASSES = 3
"""Box filters that stand for a Gaussian, one after the other in each direction, as in Pillow."""
BITS = 24
"""Of the fractions that Pillow's box filter weighs levels with."""


@dataclass(frozen=True, kw_only=True)
class ThreeAugment(Policy):
    """Grey, solarized or blurred, then brightness, contrast and saturation in a random order.

    Of the three each has the same chance (Touvron et al., 2022, arXiv:2204.07118). They are
    Pillow's, as the authors' code has them: `Grayscale`, `solarize` from level 128 on, and
    `GaussianBlur`. The rest is `ColorJitter` of one strength.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels."""
    jitter: float = 0.3
    """How far the factors of brightness, contrast and saturation are from 1 at most."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        of_choice, of_sigma, of_jitter = jax.random.split(key, 3)
        low, high = self.sigma
        plain = jnp.broadcast_to(grey(image.astype(jnp.int32)), image.shape).astype(image.dtype)
        solarized = jnp.where(image < BRIGHT, image, 255 - image)
        sigma = jax.random.uniform(of_sigma, (), minval=low, maxval=high)
        views = (plain, solarized, blurred(image, sigma, math.ceil(high)))
        view = jax.lax.select_n(jax.random.randint(of_choice, (), 0, len(views)), *views)
        light = ColorJitter(
            brightness=self.jitter, contrast=self.jitter, saturation=self.jitter, hue=0.0
        )
        return light(of_jitter, view)

    def check(self) -> None:
        """There is a blur, and no factor is negative on the way up."""
        rising = len(self.sigma) == 2 and 0 < self.sigma[0] <= self.sigma[1]
        require("sigma", self.sigma, rising, "two rising numbers > 0")
        require("jitter", self.jitter, self.jitter >= 0, ">= 0")


def blurred(
    image: UInt8[Array, "h w c"], sigma: Float[Array, ""], reach: int
) -> UInt8[Array, "h w c"]:
    """Pillow's `GaussianBlur(sigma)`, for a `sigma` of at most `reach`; borders are repeated.

    Box filters of fractional radius (Gwosdek et al., 2011), each rounded to whole levels.
    """
    weights = _weights(sigma, reach)
    view = image.astype(jnp.uint32)
    for axis in (1, 0):
        # In a loop, so that XLA computes no pixel of a pass again for every use in the next.
        view = jax.lax.fori_loop(0, PASSES, lambda _, x, at=axis: _filtered(x, at, weights), view)
    return view.astype(image.dtype)


def _weights(sigma: Float[Array, ""], reach: int) -> UInt32[Array, " distances"]:
    """Of a box filter by the distance from its middle, in fractions of 24 bits."""
    variance = sigma**2 / PASSES
    whole = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)  # full pixels to either side
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part /= 6 * (variance - (whole + 1) ** 2)
    inner = jnp.floor(2**BITS / (2 * (whole + part) + 1)).astype(jnp.uint32)
    outer = (2**BITS - (2 * whole + 1).astype(jnp.uint32) * inner) // 2
    distance = jnp.arange(reach + 1)
    return jnp.where(distance <= whole, inner, jnp.where(distance == whole + 1, outer, 0))


def _filtered(
    image: UInt32[Array, "h w c"], axis: int, weights: UInt32[Array, " distances"]
) -> UInt32[Array, "h w c"]:
    """Along the axis, rounded to the nearest level."""
    reach, size = len(weights) - 1, image.shape[axis]
    widths = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
    around = jnp.pad(image, widths, mode="edge")
    total = sum(
        weights[abs(k)] * jax.lax.slice_in_dim(around, reach + k, reach + k + size, axis=axis)
        for k in range(-reach, reach + 1)
    )
    return (total + 2 ** (BITS - 1)) >> BITS
