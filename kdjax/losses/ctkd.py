"""Curriculum temperature for distillation (Li et al., 2023, arXiv:2211.16231)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require, within
from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs


class CTKD(DistillationLoss):
    """`SoftTarget` at a temperature that is learned against the student.

    `T = start + extent · sigmoid(x)` with one number `x`, 1 at first. The student moves to lower
    the loss; `x` moves to raise it, by `-strength` times its slope, so targets become harder as the
    strength grows. Its ramp is the authors' for CIFAR-100, who count epochs from 1; for ImageNet it
    takes 5 epochs instead of 10. This is their global temperature; they also have one for each
    example. The optimizer treats `x` like any parameter: weight decay draws it to zero,
    hence the temperature to the middle. Usual weight: 0.9, beside 0.1 of the labels.
    """

    start: float = 1.0
    """Lowest temperature; positive."""
    extent: float = 20.0
    """The highest is so much higher."""
    strength: float | Ramp = Ramp(begin=-1.0, epochs=10.0, shape="cosine")
    """Share of the slope that reaches the temperature, reversed; not negative."""

    def check(self) -> None:
        """Temperatures are positive, and the reversal is one."""
        require("start", self.start, self.start > 0, "positive")
        require("extent", self.extent, self.extent > 0, "positive")
        strength = self.strength
        if isinstance(strength, Ramp):
            with within("strength"):
                strength.check()
            reverses = min(strength.start, strength.stop) >= 0
        else:
            reverses = strength >= 0
        require("strength", strength, reverses, "at least 0")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        teacher = require_teacher(self, teacher)
        x = self.param("temperature", nn.initializers.ones, ())
        x = reverse(jnp.broadcast_to(x, batch.epoch[:, None].shape), at(self.strength, batch.epoch))
        temperature = self.start + self.extent * jax.nn.sigmoid(x)
        z_t, z_s = teacher.logits / temperature, student.logits / temperature
        return jnp.ravel(temperature**2) * divergence(z_t, z_s)


def reverse(x: Array, strength: Array | float) -> Array:
    """The same value, and `-strength` times the gradient (Ganin and Lempitsky, 2015)."""
    held = jax.lax.stop_gradient(x)
    return held - strength * (x - held)


def divergence(
    z_t: Float[Array, "b classes"], z_s: Float[Array, "b classes"]
) -> Float[Array, " b"]:
    """`KL(p || q)` of two softmaxes, exact also where they are close, as at high temperatures.

    `T² KL` hardly depends on a high temperature, so its slope is a small difference. Where the
    logits are close, `w = log p - log q` is computed from their gap, and `p w` is replaced by
    `p (exp(-w) - 1 + w)`, which is never negative; what is added sums to zero.
    """
    log_p, log_q = jax.nn.log_softmax(z_t), jax.nn.log_softmax(z_s)
    p, q, gap = jnp.exp(log_p), jnp.exp(log_q), z_t - z_s
    gap -= gap.mean(axis=-1, keepdims=True)
    close = jnp.abs(gap).max(axis=-1, keepdims=True) < 2
    gap = jnp.where(close, gap, 0.0)
    w = gap - jnp.log1p(jnp.sum(q * jnp.expm1(gap), axis=-1, keepdims=True))
    return jnp.where(close, p * (jnp.expm1(-w) + w), p * (log_p - log_q)).sum(axis=-1)
