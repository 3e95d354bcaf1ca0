"""Variational information distillation (Ahn et al., 2019, arXiv:1904.05835)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import require_teacher
from kdjax.losses.stages import StagesLoss, maps, pool_to_common
from kdjax.types import Batch, Outputs

INITIAL_VARIANCE = 5.0
LEAST_VARIANCE = 1e-5


class VID(StagesLoss):
    """What the student's map leaves unsaid of the teacher's: a lower bound of their information.

    Per stage `mean(½ ((F_t - mu(F_s))² / var + log var))` over pixels and channels: the negative
    log likelihood, without its constant, of normal distributions. `mu` is three 1x1 convolutions
    with ReLU between, as wide as the teacher's map, and `var = softplus(log_scale) + 1e-5` is
    learned for each channel; it starts at 5.

    Summed over stages. Maps of different sizes: the larger is average-pooled to the smaller. Usual
    weight: 1.
    """

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per activation of the teacher, per example."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(student.logits.shape[0])
        for i, tap in enumerate(self.taps(student, teacher)):
            f_s, f_t = pool_to_common(*maps(student, teacher, tap))
            mean, variance = Normal(f_t.shape[-1], name=f"normal{i}")(f_s)
            surprise = jnp.square(f_t - mean) / variance + jnp.log(variance)
            total += 0.5 * surprise.mean(axis=(1, 2, 3))
        return total


class Normal(nn.Module):
    """A normal distribution of each activation of a map, given another map."""

    channels: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w d"], Float[Array, " d"]]:
        """Its mean, and its variance, which is one for all pixels."""
        x = features
        for i in range(3):
            x = nn.Conv(self.channels, (1, 1), use_bias=False, name=f"conv{i}")(
                nn.relu(x) if i else x
            )
        start = math.log(math.expm1(INITIAL_VARIANCE - LEAST_VARIANCE))
        scale = self.param("log_scale", nn.initializers.constant(start), (self.channels,))
        return x, jax.nn.softplus(scale) + LEAST_VARIANCE
