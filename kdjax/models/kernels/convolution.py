"""Which form a convolution takes on a CPU."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.kernels.depthwise import depthwise
from kdjax.models.kernels.few_channels import MOST_TERMS, few_channels
from kdjax.models.kernels.shifted import Pair


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
        form = functools.partial(depthwise, steps, pads)
    elif feature_group_count == 1 and height == width == 1 and pads == ((0, 0), (0, 0)):
        form = functools.partial(_pointwise, steps)
    elif feature_group_count == 1 and height * width * inputs <= MOST_TERMS:
        form = functools.partial(few_channels, steps, pads)
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
