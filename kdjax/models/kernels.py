"""Convolutions and pooling in the forms that are fast on a CPU.

XLA's CPU backend runs depthwise convolutions, 1x1 convolutions and windows many times slower than
the same arithmetic written otherwise. Every function here gives what the plain operation gives,
value and gradients, to rounding. Which form runs is decided where a program is lowered: an
exported network, and a trace, hold both.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

TERMS = 144
"""Products that the gradient of a depthwise kernel adds in one pass: more compile slowly."""


def convolution(
    x: Float[Array, "b H W c"],
    kernel: Float[Array, "k l i o"],
    strides: Sequence[int],
    padding: str | Sequence[Pair],
    *,
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
) -> Float[Array, "b h w o"]:
    """`jax.lax.conv_general_dilated` with the arguments `nn.Conv` gives it."""
    plain = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    height, width, inputs, outputs = kernel.shape
    if isinstance(padding, str) or any(d != 1 for d in (*lhs_dilation, *rhs_dilation)):
        return plain(x, kernel)
    pads, steps = (tuple(padding[0]), tuple(padding[1])), (strides[0], strides[1])
    form: Callable[[Array, Array], Array]
    if feature_group_count == outputs == x.shape[-1] and inputs == 1:
        form = functools.partial(_depthwise, steps, pads)
    elif feature_group_count == 1 and height == width == 1 and pads == ((0, 0), (0, 0)):
        form = functools.partial(_pointwise, steps)
    else:
        return plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=form, default=plain)


def max_pool(x: Float[Array, "b H W c"], size: int) -> Float[Array, "b h w c"]:
    """The largest of each `size x size` pixels; pixels that fill no window are left out.

    The gradient goes to the first of equal pixels, as that of `nn.max_pool` does.
    """

    def plain(x: Array) -> Array:
        return nn.max_pool(x, (size, size), strides=(size, size))

    return jax.lax.platform_dependent(
        x, cpu=functools.partial(_largest_of_windows, size), default=plain
    )


def _product_with_ones(x: Array) -> Array:
    """The sum over all axes but the last; a matrix product reads memory in order."""
    rows = x.reshape(x.shape[0], -1)
    ones = jnp.ones(len(rows), x.dtype)
    return jnp.dot(ones, rows, precision="highest").reshape(-1, x.shape[-1]).sum(axis=0)


def _pointwise(strides: Pair, x: Array, kernel: Array) -> Array:
    """A convolution of one pixel is a matrix product."""
    return jnp.dot(x[:, :: strides[0], :: strides[1]], kernel[0, 0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _depthwise(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    """The sum of shifted images, each times one weight a channel."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    height, width = kernel.shape[:2]
    rows = (padded.shape[1] - height) // strides[0] + 1
    columns = (padded.shape[2] - width) // strides[1] + 1
    total = jnp.zeros((), jnp.float32)
    for i in range(height):
        for j in range(width):
            total += _shifted(padded, (i, j), strides, (rows, columns)) * kernel[i, j, 0]
    return total.astype(x.dtype)


def _depthwise_forward(
    strides: Pair, pads: Pads, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(strides, pads, x, kernel), (x, kernel)


def _depthwise_backward(
    strides: Pair, pads: Pads, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        _depthwise_to_image(strides, pads, x.shape, kernel, gradient),
        _depthwise_to_kernel(strides, pads, x, kernel, gradient),
    )


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _depthwise_to_image(
    strides: Pair, pads: Pads, shape: Sequence[int], kernel: Array, gradient: Array
) -> Array:
    """The gradient spread out by the strides, filtered with the kernel turned around."""
    around = []
    for axis, ((low, _), stride) in enumerate(zip(pads, strides, strict=True)):
        size = kernel.shape[axis]
        written = (gradient.shape[axis + 1] - 1) * stride + 1
        # Negative where some of the padding is never seen again.
        around.append((size - 1 - low, shape[axis + 1] + low - written, stride - 1))
    zero = jnp.zeros((), gradient.dtype)
    spread = jax.lax.pad(gradient, zero, ((0, 0, 0), *around, (0, 0, 0)))
    return _depthwise((1, 1), ((0, 0), (0, 0)), spread, kernel[::-1, ::-1])


def _depthwise_to_kernel(
    strides: Pair, pads: Pads, x: Array, kernel: Array, gradient: Array
) -> Array:
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    gradient = gradient.astype(jnp.float32)
    height, width = kernel.shape[:2]
    rows, columns = gradient.shape[1:3]
    most = max(1, TERMS // (height * width))
    parts = max(part for part in range(1, min(rows, most) + 1) if rows % part == 0)
    band = rows // parts
    sums = []
    for i in range(height):
        for j in range(width):
            # Bands of rows are added in one pass, which leaves little to write down and sum.
            total = jnp.zeros((), jnp.float32)
            for top in range(0, rows, band):
                start = (i + top * strides[0], j)
                seen = _shifted(padded, start, strides, (band, columns))
                total += seen * gradient[:, top : top + band]
            sums.append(_product_with_ones(total))
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def _shifted(x: Array, start: Pair, strides: Pair, count: Pair) -> Array:
    """`count` rows and columns of `[b, H, W, c]` from `start` on, every `strides`-th."""
    (top, left), (rows, columns) = start, count
    bottom, right = top + strides[0] * (rows - 1) + 1, left + strides[1] * (columns - 1) + 1
    return x[:, top : bottom : strides[0], left : right : strides[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _largest_of_windows(size: int, x: Array) -> Array:
    return functools.reduce(jnp.maximum, _places(size, x))


def _places(size: int, x: Array) -> list[Array]:
    """The first pixel of all windows, the second of all windows, … row by row."""
    count = (x.shape[1] // size, x.shape[2] // size)
    places = [(i, j) for i in range(size) for j in range(size)]
    return [_shifted(x, place, (size, size), count) for place in places]


def _largest_forward(size: int, x: Array) -> tuple[Array, tuple[Array, Array]]:
    largest = _largest_of_windows(size, x)
    return largest, (x, largest)


def _largest_backward(size: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, largest = saved
    parts, free = [], jnp.ones(largest.shape, bool)
    for place in _places(size, x):
        first = free & (place == largest)
        parts.append(jnp.where(first, gradient, 0))
        free = free & ~first
    batch, rows, columns, channels = largest.shape
    whole = jnp.stack(parts).reshape(size, size, *largest.shape).transpose(2, 3, 0, 4, 1, 5)
    whole = whole.reshape(batch, rows * size, columns * size, channels)
    rest = (x.shape[1] - rows * size, x.shape[2] - columns * size)
    return (jnp.pad(whole, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0))),)


_largest_of_windows.defvjp(_largest_forward, _largest_backward)
