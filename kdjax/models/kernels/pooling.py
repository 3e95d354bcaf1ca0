"""Max-pooling without overlap: the largest of shifted images."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.kernels.shifted import shifted


def max_pool(x: Float[Array, "b H W c"], size: int) -> Float[Array, "b h w c"]:
    """The largest of each `size x size` pixels; pixels that fill no window are left out.

    The gradient goes to the first of equal pixels, as that of `nn.max_pool` does.
    """

    def plain(x: Array) -> Array:
        return nn.max_pool(x, (size, size), strides=(size, size))

    return jax.lax.platform_dependent(
        x, cpu=functools.partial(_largest_of_windows, size), default=plain
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _largest_of_windows(size: int, x: Array) -> Array:
    return functools.reduce(jnp.maximum, _places(size, x))


def _places(size: int, x: Array) -> list[Array]:
    """The first pixel of all windows, the second of all windows, … row by row."""
    count = (x.shape[1] // size, x.shape[2] // size)
    places = [(i, j) for i in range(size) for j in range(size)]
    return [shifted(x, place, (size, size), count) for place in places]


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
