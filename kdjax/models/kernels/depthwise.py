"""Depthwise convolutions: the sum of shifted images, each times one weight a channel."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.kernels.shifted import Pads, Pair, places, shifted
from kdjax.models.kernels.sums import product_with_ones

TERMS = 144
"""Products that the gradient of a kernel adds in one pass: more compile slowly."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def depthwise(strides: Pair, pads: Pads, x: Array, kernel: Array) -> Array:
    """The sum of shifted images, each times one weight a channel."""
    total = jnp.zeros((), jnp.float32)
    for i, j, seen in places(x, kernel, strides, pads):
        total += seen * kernel[i, j, 0]
    return total.astype(x.dtype)


def _forward(
    strides: Pair, pads: Pads, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(strides, pads, x, kernel), (x, kernel)


def _backward(
    strides: Pair, pads: Pads, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        _to_image(strides, pads, x.shape, kernel, gradient),
        _to_kernel(strides, pads, x, kernel, gradient),
    )


depthwise.defvjp(_forward, _backward)


def _to_image(
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
    return depthwise((1, 1), ((0, 0), (0, 0)), spread, kernel[::-1, ::-1])


def _to_kernel(strides: Pair, pads: Pads, x: Array, kernel: Array, gradient: Array) -> Array:
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
                seen = shifted(padded, start, strides, (band, columns))
                total += seen * gradient[:, top : top + band]
            sums.append(product_with_ones(total))
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
