"""Which form a convolution takes on a CPU."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.kernels.depthwise import depthwise
from kdjax.models.kernels.few_channels import MOST_TERMS, few_channels
from kdjax.models.kernels.shifted import Pads, Pair

STATIC = ("lhs_dilation", "rhs_dilation", "dimension_numbers", "feature_group_count", "precision")


def convolution(
    x: Float[Array, "b H W c"],
    kernel: Float[Array, "k l i o"],
    strides: Sequence[int],
    padding: str | Sequence[Sequence[int]],
    **others: Any,
) -> Float[Array, "b h w o"]:
    """`jax.lax.conv_general_dilated` with the arguments `nn.Conv` gives it."""
    if not isinstance(padding, str):
        (top, bottom), (left, right) = padding
        padding = (top, bottom), (left, right)
    return _convolution(x, kernel, (strides[0], strides[1]), padding, **others)


# Every network has many of the same size: each is traced once.
@functools.partial(jax.jit, inline=True, static_argnums=(2, 3), static_argnames=STATIC)
def _convolution(
    x: Array,
    kernel: Array,
    strides: Pair,
    padding: str | Pads,
    *,
    lhs_dilation: Pair,
    rhs_dilation: Pair,
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
) -> Array:
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
    form: Callable[[Array, Array], Array]
    if feature_group_count == outputs == x.shape[-1] and inputs == 1:
        form = functools.partial(depthwise, strides, padding)
    elif feature_group_count == 1 and height == width == 1 and padding == ((0, 0), (0, 0)):
        form = functools.partial(_pointwise, strides)
    elif feature_group_count == 1 and height * width * inputs <= MOST_TERMS:
        form = functools.partial(few_channels, strides, padding)
    else:
        return plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=form, default=plain)


def _pointwise(strides: Pair, x: Array, kernel: Array) -> Array:
    """A convolution of one pixel is a matrix product.

    Of matrices, since XLA copies what has more axes into another order for the gradient.
    """
    seen = x[:, :: strides[0], :: strides[1]]
    rows = seen.reshape(-1, x.shape[-1])
    return jnp.dot(rows, kernel[0, 0]).reshape(*seen.shape[:3], -1)
