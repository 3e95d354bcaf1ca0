"""What a transform is: a pure function of an image and its key, or of all of a device's batch."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.checks import require
from kdjax.types import Batch

Shape = tuple[int, int, int]
"""Height, width and channels of an image."""


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A random view of an image `[H, W, C]`, uint8 to uint8.

    Those that mix images define `apply` instead of `__call__`.
    """

    mixes: ClassVar[bool] = False
    """Images become mixtures with others, of two labels: such a transform comes last, and once."""

    def __call__(self, key: Array, image: Array) -> Array:
        """The view, of the same shape and type."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def apply(self, keys: Array, batch: Batch, views: int) -> Batch:
        """What one device holds of the global batch, each image seen with its own key.

        In the batch, `views` of each example follow each other.
        """
        return batch._replace(image=jax.vmap(self)(keys, batch.image))

    def check(self) -> None:
        """ValueError for the first field that cannot work: `padding: -1 cannot work; …`."""

    def check_shape(self, shape: Shape) -> None:
        """ValueError for the first field that cannot work with images of this shape."""


def require_probability(value: float, field: str = "probability") -> None:
    """The rule that all of them obey."""
    require(field, value, 0 <= value <= 1, "in [0, 1]")


def unit(image: Array) -> Array:
    """Levels in [0, 1]."""
    return image / 255.0 if image.dtype == jnp.uint8 else image


def from_unit(image: Array, like: Array) -> Array:
    """Levels in [0, 1] as those of another image: the way back from `unit`, rounded."""
    return rounded(image * 255 if like.dtype == jnp.uint8 else image, like)


def rounded(image: Array, like: Array) -> Array:
    """Float levels in the type of another image; whole numbers are rounded."""
    return (jnp.round(image) if like.dtype == jnp.uint8 else image).astype(like.dtype)
