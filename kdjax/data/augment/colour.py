"""Random light and colour."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdjax.checks import require
from kdjax.data.augment.base import Shape, Transform, from_unit, unit

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True, kw_only=True)
class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue, in a random order, as torchvision defines them.

    By its definitions for float images in [0, 1]: the first three are blends with black, with the
    mean grey and with each pixel's grey, the factor of the image uniform in `1 ± value`, but not
    below zero, and results are cut to [0, 1]; hue is turned in HSV by up to ± its value. Levels of
    uint8 images are rounded once, at the end.
    """

    brightness: float = 0.4
    """How far factors are from 1 at most."""
    contrast: float = 0.4
    """How far factors are from 1 at most."""
    saturation: float = 0.4
    """How far factors are from 1 at most."""
    hue: float = 0.0
    """Of a whole turn, in [0, 0.5]."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        factors, order = self._drawn(key)
        return from_unit(adjusted(unit(image), factors, order), image)

    def _drawn(self, key: Array) -> tuple[Float[Array, "4"], Int[Array, " steps"]]:
        """The three factors and the turn, and the order of the steps."""
        of_factors, of_order = jax.random.split(key)
        reach = jnp.asarray([self.brightness, self.contrast, self.saturation, self.hue])
        low = jnp.maximum(1 - reach, 0).at[HUE].set(-self.hue)
        high = (1 + reach).at[HUE].set(self.hue)
        factors = jax.random.uniform(of_factors, (4,), minval=low, maxval=high)
        return factors, jax.random.permutation(of_order, 4 if self.hue else 3)

    def check(self) -> None:
        """Nothing is negative, and no hue turns beyond its opposite."""
        for name in ("brightness", "contrast", "saturation"):
            require(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        require("hue", self.hue, 0 <= self.hue <= 0.5, "in [0, 0.5]")

    def check_shape(self, shape: Shape) -> None:
        """Only colours can be changed."""
        for name in ("saturation", "hue"):
            fits = shape[2] == 3 or getattr(self, name) == 0
            require(name, getattr(self, name), fits, "0 for images that are not in colour")


def adjusted(
    image: Float[Array, "h w c"], factors: Float[Array, "4"], order: Int[Array, " steps"]
) -> Float[Array, "h w c"]:
    """The image, in [0, 1], after these steps."""
    for step in order:
        grey = _grey(image)
        others = (jnp.zeros_like(grey), jnp.full_like(grey, grey.mean()), grey, grey)
        other = jax.lax.select_n(step, *others)
        blend = jnp.clip(other + factors[step] * (image - other), 0, 1)
        if len(order) > HUE:
            blend = jnp.where(step == HUE, _turned(image, factors[HUE]), blend)
        image = blend
    return image


def _grey(image: Array) -> Array:
    """`[H, W, 1]`; grey images are their own."""
    if image.shape[-1] == 1:
        return image
    return (image * jnp.asarray([0.2989, 0.587, 0.114])).sum(axis=-1, keepdims=True)


def _turned(image: Array, turn: Array) -> Array:
    """Every hue of HSV moved on by that part of a turn; lightest and darkest channel stay."""
    red, green, blue = jnp.moveaxis(image, -1, 0)
    most, least = image.max(axis=-1), image.min(axis=-1)
    chroma = most - least
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sixth = jnp.where(
        most == red,
        (green - blue) / safe,
        jnp.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # A channel is lightest for two sixths on either side of its own hue and falls off linearly.
    place = (jnp.asarray([5.0, 3.0, 1.0]) + (sixth + 6 * turn)[..., None]) % 6
    return most[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
