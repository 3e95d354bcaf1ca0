"""Images moved by a few pixels, which the other forms multiply and add up."""

from collections.abc import Iterator

import jax.numpy as jnp
from jaxtyping import Array

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def shifted(x: Array, start: Pair, strides: Pair, count: Pair) -> Array:
    """`count` rows and columns of `[b, H, W, c]` from `start` on, every `strides`-th."""
    (top, left), (rows, columns) = start, count
    bottom, right = top + strides[0] * (rows - 1) + 1, left + strides[1] * (columns - 1) + 1
    return x[:, top : bottom : strides[0], left : right : strides[1]]


def places(x: Array, kernel: Array, strides: Pair, pads: Pads) -> Iterator[tuple[int, int, Array]]:
    """Row, column, and the float32 pixels that the kernel has under them, for each."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    height, width = kernel.shape[:2]
    rows = (padded.shape[1] - height) // strides[0] + 1
    columns = (padded.shape[2] - width) // strides[1] + 1
    for i in range(height):
        for j in range(width):
            yield i, j, shifted(padded, (i, j), strides, (rows, columns))
