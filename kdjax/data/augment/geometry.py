"""Windows, mirrors and holes: where the pixels of a view come from."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdjax.checks import require
from kdjax.data.augment.base import Shape, Transform, from_unit, require_probability, rounded


@dataclass(frozen=True, kw_only=True)
class PadCrop(Transform):
    """Pad the raw image with zeros on every side and cut a random window of the original size."""

    padding: int = 4
    """Pixels added to each side."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        p = self.padding
        row, column = jax.random.randint(key, (2,), 0, 2 * p + 1)
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)

    def check(self) -> None:
        """There is no less than no padding."""
        require("padding", self.padding, self.padding >= 0, ">= 0")

    def check_shape(self, shape: Shape) -> None:
        """A window sees some of the image."""
        _require_inside("padding", self.padding, min(shape[:2]) - 1)


@dataclass(frozen=True, kw_only=True)
class Flip(Transform):
    """Mirror left and right."""

    probability: float = 0.5
    """How often, in [0, 1]."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)

    def check(self) -> None:
        """The probability is one."""
        require_probability(self.probability)


ATTEMPTS = 10
"""At a window that fits into the image."""


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(Transform):
    """Stretch a random window to the size of the image (Szegedy et al., 2015, arXiv:1409.4842).

    Windows are torchvision's, in whole pixels: the share of the area is uniform in `scale`, the
    logarithm of width over height is uniform in that of `ratio`, both are drawn anew until the
    window fits, and it lies anywhere inside. After ten that do not fit it is the largest in the
    middle whose ratio is allowed. Pixels are interpolated linearly; those at its edges see their
    neighbours outside of it.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the area, in (0, 1]."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width over height."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        corner, window = self._window(key, image.shape)
        view = image
        for axis in (0, 1):  # rows first: they lie together in memory
            view = _stretched(view, axis, corner[axis], window[axis])
        return rounded(view, image)

    def _window(self, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Its upper left corner and its size, in pixels."""
        of_area, of_ratio, of_place = jax.random.split(key, 3)
        whole = jnp.asarray(shape[:2])
        drawn = _attempts((of_area, of_ratio), shape, self.scale, self.ratio)
        fits = ((drawn > 0) & (drawn <= whole)).all(axis=1)
        window = jnp.where(fits.any(), drawn[fits.argmax()], jnp.asarray(self._largest(shape)))
        free = whole - window
        corner = jax.random.randint(of_place, (2,), 0, free + 1)
        return jnp.where(fits.any(), corner, free // 2), window

    def _largest(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the largest window whose ratio is allowed."""
        height, width = shape[:2]
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        sides = min(height, round(width / ratio)), min(width, round(height * ratio))
        return max(1, sides[0]), max(1, sides[1])

    def check(self) -> None:
        """Both are pairs that rise; a window is no larger than the image."""
        _check_windows(self)


def _attempts(
    keys: tuple[Array, Array],
    shape: tuple[int, ...],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int[Array, "attempts 2"]:
    """Height and width of windows, in whole pixels, of which some may not fit.

    The area, by the first key, is uniform, and so is the logarithm of width over height, by the
    second.
    """
    low, high = scale
    area = jax.random.uniform(keys[0], (ATTEMPTS,), minval=low, maxval=high)
    area *= jnp.asarray(shape[:2]).prod()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    wide = jnp.exp(jax.random.uniform(keys[1], (ATTEMPTS,), minval=low, maxval=high))
    return jnp.round(jnp.sqrt(jnp.stack([area / wide, area * wide], axis=1))).astype(int)


def _stretched(image: Array, axis: int, start: Array, extent: Array) -> Array:
    """The stretch of that extent, as long as the axis, from its two nearest pixels at each point.

    A window is never larger than the image, so no pixel is skipped and two are all there is to see.
    """
    size = image.shape[axis]
    centre = start + (jnp.arange(size) + 0.5) * extent / size - 0.5
    centre = jnp.clip(centre, 0, size - 1)
    before = centre.astype(jnp.int32)
    after = jnp.minimum(before + 1, size - 1)
    weight = (centre - before).reshape((-1,) + (1,) * (2 - axis))
    near, far = (jnp.take(image, at, axis, mode="clip") for at in (before, after))
    return (1 - weight) * near + weight * far


@dataclass(frozen=True, kw_only=True)
class Cutout(Transform):
    """Blacken a square (DeVries and Taylor, 2017, arXiv:1708.04552).

    Its centre is a pixel of the image, any with the same chance; what lies outside is cut off.
    """

    size: int = 16
    """Pixels of each side."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        centre = jax.random.randint(key, (2,), 0, jnp.asarray(image.shape[:2]))
        start = centre - self.size // 2
        return jnp.where(inside(image.shape, start, start + self.size), 0, image)

    def check(self) -> None:
        """There is a square."""
        require("size", self.size, self.size >= 1, "at least 1")

    def check_shape(self, shape: Shape) -> None:
        """Not all of the image is lost."""
        _require_inside("size", self.size, min(shape[:2]))


@dataclass(frozen=True, kw_only=True)
class RandomErasing(Transform):
    """Fill a rectangle with a colour or with noise (Zhong et al., 2017, arXiv:1708.04896).

    The share of the area is uniform in `scale`, the logarithm of height over width in that of
    `ratio`, both are drawn anew until the rectangle is smaller than the image both ways, and it
    lies anywhere inside. After ten that are not, the image stays as it is. So do timm and
    torchvision, on images that are normalised. Here the model normalises, and what is filled in is
    a level before that, in [0, 1]: `mean + std · n`, `n` normal, for each pixel and channel, cut to
    [0, 1] and, in uint8 images, rounded to the nearest of 255 levels. A model's own `mean` with
    `std` 0 is their constant 0, and its own `mean` and `std` are their noise, but for the cut.
    """

    probability: float = 0.5
    """How often, in [0, 1]."""
    scale: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the area, in (0, 1]."""
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    """Smallest and largest height over width."""
    mean: tuple[float, ...] = (0.5,)
    """Of the levels filled in, in [0, 1]; one value serves all channels."""
    std: tuple[float, ...] = (0.0,)
    """Their standard deviation; 0: one colour, the mean."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        of_whether, of_window, of_fill = jax.random.split(key, 3)
        start, size = self._window(of_window, image.shape)
        size = jnp.where(jax.random.bernoulli(of_whether, self.probability), size, 0)
        erased = inside(image.shape, start, start + size)
        return jnp.where(erased, from_unit(self._fill(of_fill, image.shape), image), image)

    def _window(self, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Its upper left corner and its size, in pixels; of none that fits the size is 0."""
        of_area, of_ratio, of_place = jax.random.split(key, 3)
        whole = jnp.asarray(shape[:2])
        # Height over width here, so the sides change places.
        drawn = _attempts((of_area, of_ratio), shape, self.scale, self.ratio)[:, ::-1]
        fits = (drawn < whole).all(axis=1)
        size = jnp.where(fits.any(), drawn[fits.argmax()], 0)
        return jax.random.randint(of_place, (2,), 0, whole - size + 1), size

    def _fill(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "h w c"]:
        """Levels in [0, 1]."""
        mean, std = (jnp.asarray(values, jnp.float32) for values in (self.mean, self.std))
        noise = jax.random.normal(key, shape) if any(self.std) else jnp.zeros(shape)
        return jnp.clip(mean + std * noise, 0, 1)

    def check(self) -> None:
        """The probability is one, the ranges rise, and what is filled in are levels."""
        require_probability(self.probability)
        _check_windows(self)
        for name, most in (("mean", 1.0), ("std", math.inf)):
            values = getattr(self, name)
            fits = len(values) > 0 and all(0 <= value <= most for value in values)
            of_each = "in [0, 1]" if most == 1 else ">= 0"
            require(name, values, fits, f"{of_each}, one value or one a channel")

    def check_shape(self, shape: Shape) -> None:
        """Each channel has its level."""
        for name in ("mean", "std"):
            values = getattr(self, name)
            fits = len(values) in (1, shape[2])
            require(name, values, fits, f"one value or as many as the {shape[2]} channels")


def _check_windows(transform: RandomResizedCrop | RandomErasing) -> None:
    for name, most in (("scale", 1.0), ("ratio", math.inf)):
        bounds = getattr(transform, name)
        fits = len(bounds) == 2 and 0 < bounds[0] <= bounds[1] <= most
        remedy = "two rising numbers in (0, 1]" if most == 1 else "two rising numbers > 0"
        require(name, bounds, fits, remedy)


def inside(shape: tuple[int, ...], start: Array, stop: Array) -> Array:
    """`[H, W, 1]`: which pixels are in the rectangle from one corner to before the other."""
    rows, columns = (jnp.arange(size) for size in shape[:2])
    rows = (start[0] <= rows) & (rows < stop[0])
    columns = (start[1] <= columns) & (columns < stop[1])
    return (rows[:, None] & columns)[..., None]


def _require_inside(field: str, value: int, most: int) -> None:
    require(field, value, value <= most, f"at most {most}: the images are no larger")
