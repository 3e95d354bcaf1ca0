"""The overhaul of feature distillation (Heo et al., 2019, arXiv:1904.01866)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from kdjax.losses.base import require_teacher, safe_sqrt
from kdjax.losses.conv_norm import ConvNorm
from kdjax.losses.stages import StagesLoss, maps_before_relu, pool_to_common
from kdjax.types import AXIS, Batch, Outputs


class OFD(StagesLoss):
    """Match what the teacher's last ReLU of each stage reads, as far as that ReLU can tell.

    `F_s` is the student's map before the ReLU, after a 1x1 convolution without bias and batch norm;
    `F_t` the teacher's, raised to the margin of its channel where it is lower. Each neuron counts
    `(F_s - F_t)²`, and 0 where `F_s ≤ F_t ≤ 0`. Summed over pixels and channels; stage i of n
    counts `2^(i-n)`, the last one 1. Maps of different sizes: the larger is average-pooled to the
    smaller.

    The margin is the mean of the negative values in a channel of the teacher:

    - `variant="code"`: of a normal distribution with the channel's mean and standard deviation, or
      minus three deviations where less than 0.001 of that is negative;
    - `variant="paper"`: of the values themselves; 0 where none is negative.

    Both are measured in the global batch. The authors' code takes mean and deviation from shift and
    scale of the last batch norm instead, which leaves out what a shortcut adds and which not every
    network has. A running average would begin with margins that are wrong, and a batch has enough
    pixels. The authors run the teacher in training mode; here it never is.

    Usual weight: 0.001; 0.0001 on ImageNet.
    """

    variant: Literal["code", "paper"] = "code"
    """How the margins are found."""
    sync_batch_norm: bool = True
    """Normalise the connectors, and measure the margins, over the global batch."""

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(student.logits.shape[0])
        for tap in self.taps(student, teacher):
            f_s, f_t = pool_to_common(*maps_before_relu(student, teacher, tap))
            name = f"connector_{tap[0]}"
            f_s = ConvNorm(f_t.shape[-1], sync=self.sync_batch_norm, name=name)(f_s)
            gap = partial_distance(f_s, jnp.maximum(f_t, self._margin(f_t)))
            # Each stage halves what the earlier ones count.
            total = total / 2 + gap.sum(axis=(1, 2, 3))
        return total

    def _margin(self, f_t: Array) -> Float[Array, " c"]:
        f_t = jax.lax.stop_gradient(f_t)  # a property of the teacher, whatever its values
        if self.variant == "code":
            mean = self._mean(f_t)
            return normal_margin(mean, safe_sqrt(self._mean(jnp.square(f_t - mean))))
        share = self._mean(f_t < 0)
        return self._mean(jnp.minimum(f_t, 0.0)) / jnp.where(share > 0, share, 1.0)

    def _mean(self, x: Array) -> Float[Array, " c"]:
        """Of each channel, over the pixels of all devices."""
        mean = x.mean(axis=(0, 1, 2))
        # As in batch norm, shapes are found outside of any mapping over devices.
        alone = self.is_initializing() or not self.sync_batch_norm
        return mean if alone else jax.lax.pmean(mean, AXIS)


def partial_distance(f_s: Array, f_t: Array) -> Array:
    """`(F_s - F_t)²`, and 0 where `F_s ≤ F_t ≤ 0`."""
    return jnp.where((f_s > f_t) | (f_t > 0), jnp.square(f_s - f_t), 0.0)


def normal_margin(mean: Float[Array, " c"], deviation: Float[Array, " c"]) -> Float[Array, " c"]:
    """The mean of the negative part of normal distributions; `-3σ` where that is below 0.001."""
    z = mean / jnp.maximum(deviation, jnp.finfo(jnp.float32).tiny)
    negative = norm.cdf(-z)
    some = negative > 0.001
    average = mean - deviation * norm.pdf(z) / jnp.where(some, negative, 1.0)
    return jnp.where(some, average, -3 * deviation)
