"""Batch norm that reads each map as seldom as it can."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.models.kernels import channel_sum


class BatchNorm(nn.BatchNorm):
    """Flax's over the last axis, with the gradient of the whole written down.

        y = scale (x - mean) / sqrt(variance + epsilon) + bias

    The gradient needs two sums over the batch where differentiating each operation takes four.
    Statistics are float32 and, with `axis_name`, those of all devices.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:  # type: ignore[override]
        """Of the batch's statistics, or with `use_running_average` of the running ones."""
        channels = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        variance = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", self.scale_init, channels, self.param_dtype)
        bias = self.param("bias", self.bias_init, channels, self.param_dtype)
        if self.use_running_average:
            factor = jax.lax.rsqrt(variance.value + self.epsilon) * scale
            return ((x - mean.value) * factor + bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        statistics = _statistics(x, axis_name, two_passes=not self.use_fast_variance)
        if not self.is_initializing():
            kept = self.momentum
            mean.value = kept * mean.value + (1 - kept) * statistics[0]
            variance.value = kept * variance.value + (1 - kept) * statistics[1]
        y = _normalised(self.epsilon, axis_name, x, scale, bias, *statistics)
        return y.astype(self.dtype)


def _average(axis_name: str | None, count: int, *sums: Array) -> Array:
    """Over the examples of all devices, in one message."""
    means = jnp.stack(sums) / count
    return means if axis_name is None else jax.lax.pmean(means, axis_name)


def _statistics(x: Array, axis_name: str | None, *, two_passes: bool) -> tuple[Array, Array]:
    x = jax.lax.stop_gradient(x).astype(jnp.float32)
    count = x.size // x.shape[-1]
    if two_passes:
        (mean,) = _average(axis_name, count, channel_sum(x))
        (variance,) = _average(axis_name, count, channel_sum(jnp.square(x - mean)))
        return mean, variance
    mean, square = _average(axis_name, count, channel_sum(x), channel_sum(jnp.square(x)))
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalised(
    epsilon: float,
    axis_name: str | None,
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
) -> Array:
    """`mean` and `variance` are those of `x`, which the gradient knows: theirs is zero."""
    return (x - mean) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias


def _forward(
    epsilon: float,
    axis_name: str | None,
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    y = _normalised(epsilon, axis_name, x, scale, bias, mean, variance)
    return y, (x, scale, mean, jax.lax.rsqrt(variance + epsilon))


def _backward(
    epsilon: float, axis_name: str | None, saved: tuple[Array, Array, Array, Array], dy: Array
) -> tuple[Array, Array, Array, Array, Array]:
    x, scale, mean, inverse = saved
    dy = dy.astype(jnp.float32)
    to_bias = channel_sum(dy)
    to_scale = channel_sum(dy * (x - mean)) * inverse
    level, slope = _average(axis_name, x.size // x.shape[-1], to_bias, to_scale)
    dx = (dy - level - (x - mean) * (inverse * slope)) * (inverse * scale)
    return dx.astype(x.dtype), to_scale, to_bias, jnp.zeros_like(mean), jnp.zeros_like(mean)


_normalised.defvjp(_forward, _backward)
