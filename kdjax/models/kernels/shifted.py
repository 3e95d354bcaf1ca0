"""Images moved by a few pixels, which the other forms multiply and add up."""

from jaxtyping import Array

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def shifted(x: Array, start: Pair, strides: Pair, count: Pair) -> Array:
    """`count` rows and columns of `[b, H, W, c]` from `start` on, every `strides`-th."""
    (top, left), (rows, columns) = start, count
    bottom, right = top + strides[0] * (rows - 1) + 1, left + strides[1] * (columns - 1) + 1
    return x[:, top : bottom : strides[0], left : right : strides[1]]
