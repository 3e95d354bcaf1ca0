"""Batch norm that reads each map as seldom as it can."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.kernels import channel_sum


class BatchNorm(nn.BatchNorm):
    """Flax's over the last axis, with two sums over the batch in the gradient, where it takes four.

        y = scale (x - mean) / sqrt(variance + epsilon) + bias

    Statistics are float32 and, with `axis_name`, those of all devices.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:  # type: ignore[override]
        """Of the batch's statistics, or with `use_running_average` of the running ones."""
        channels = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        variance = self.variable("batch_stats", "var", jnp.ones, channels)
        # Parameters that were read from a file are NumPy's.
        scale = jnp.asarray(self.param("scale", self.scale_init, channels, self.param_dtype))
        bias = jnp.asarray(self.param("bias", self.bias_init, channels, self.param_dtype))
        if self.use_running_average:
            factor = jax.lax.rsqrt(variance.value + self.epsilon) * scale
            return ((x - mean.value) * factor + bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        center, spread = _statistics(x, axis_name, two_passes=not self.use_fast_variance)
        if not self.is_initializing():
            kept = self.momentum
            mean.value = kept * mean.value + (1 - kept) * center
            variance.value = kept * variance.value + (1 - kept) * spread
        factor = jax.lax.rsqrt(spread + self.epsilon) * scale
        return _normalised(x, center, factor, bias).astype(self.dtype)


def resting(rests: Callable[[str], bool]) -> AbstractContextManager[None]:
    """Within it, batch norm of Flax at a path that `rests` normalises by its running statistics.

    Paths are those of modules: `stage1_block0_bn1`.
    """

    def intercept(
        call: Callable[..., Any], arguments: Any, fields: Any, context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if not isinstance(layer, nn.BatchNorm) or not rests("/".join(layer.path)):
            return call(*arguments, **fields)
        if layer.use_running_average is None:  # it is said at each call then
            return call(*arguments, **{**fields, "use_running_average": True})
        object.__setattr__(layer, "use_running_average", True)  # a layer is made anew at each call
        return call(*arguments, **fields)

    return nn.intercept_methods(intercept)


def _statistics(x: Array, axis_name: str | None, *, two_passes: bool) -> tuple[Array, Array]:
    x = x.astype(jnp.float32)
    count = x.size // x.shape[-1]
    if two_passes:
        (mean,) = _average(axis_name, count, channel_sum(x))
        (variance,) = _average(axis_name, count, channel_sum(jnp.square(x - mean)))
        return mean, variance
    mean, square = _average(axis_name, count, channel_sum(x), channel_sum(jnp.square(x)))
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _average(axis_name: str | None, count: int, *sums: Array) -> Array:
    """Over the examples of all devices, in one message."""
    means = jnp.stack(sums) / count
    return means if axis_name is None else jax.lax.pmean(means, axis_name)


@jax.custom_vjp
def _normalised(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    return (x - mean) * factor + bias


def _forward(
    x: Array, mean: Array, factor: Array, bias: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _normalised(x, mean, factor, bias), (x, mean, factor)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, Array, Array]:
    x, mean, factor = saved
    to_bias = channel_sum(dy)
    to_factor = channel_sum(dy * (x - mean))
    return (dy * factor).astype(x.dtype), -factor * to_bias, to_factor, to_bias


_normalised.defvjp(_forward, _backward)
