"""Be your own teacher (Zhang et al., 2019, arXiv:1905.08094)."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_temperature
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.losses.ramp import Ramp, at
from kdjax.models.base import kaiming_fan_out
from kdjax.models.stages import stages
from kdjax.types import AXIS, Batch, Outputs


class BYOT(DistillationLoss):
    """The student's shallow stages learn from the labels and from its own deepest answer.

    Every stage but the last gets a bottleneck (convolution, batch norm, ReLU), whose pooled result
    `f_i` has the embedding's width, and a classifier with logits `z_i`. Summed over these stages:

    `(1 - alpha) CE(z_i, y) + alpha KL(softmax(z / T) || softmax(z_i / T)) + beta ||f_i - f||²`

    with the student's own logits `z` and embedding `f`, which are held constant. The network's last
    layer learns from another term, such as `CrossEntropy`; what is added here is thrown away after
    training. As in the authors' code there is no factor `T²`. Their later version compares
    unsquared lengths through one more linear layer, and leaves that out for the first stage.
    Usual weight: 1.
    """

    stages: tuple[str, ...] = ()
    """Stages that learn; empty: all but the last."""
    alpha: float = 0.3
    """Share of the deepest logits, the rest is the labels'."""
    beta: float = 0.03
    """Weight of the deepest features."""
    temperature: float | Ramp = 3.0
    """Divides both logits; positive."""
    sync_batch_norm: bool = True
    """Normalise the bottlenecks over the global batch."""

    needs_teacher: ClassVar[bool] = False
    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """A share, a weight and a positive temperature."""
        require("alpha", self.alpha, 0 <= self.alpha <= 1, "in [0, 1]")
        require("beta", self.beta, self.beta >= 0, "at least 0")
        require_temperature(self.temperature)

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, and squared activations."""
        temperature = at(self.temperature, batch.epoch)
        deepest = jax.lax.stop_gradient(student.embedding.astype(jnp.float32))
        log_p = jax.nn.log_softmax(jax.lax.stop_gradient(student.logits) / temperature)
        total = jnp.zeros(len(deepest))
        for stage in self._shallow(student):
            features = self._bottleneck(student.features[stage], deepest.shape[-1], stage)
            logits = nn.Dense(student.logits.shape[-1], name=f"classifier_{stage}")(features)
            log_q = jax.nn.log_softmax(logits / temperature)
            divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
            hint = jnp.square(features - deepest).sum(axis=-1)
            labels = cross_entropy(logits, batch.label)
            total += (1 - self.alpha) * labels + self.alpha * divergence + self.beta * hint
        return total

    def _shallow(self, student: Outputs) -> tuple[str, ...]:
        chosen = self.stages or stages(student)[:-1]
        if not chosen:
            raise ValueError("BYOT: the student has one stage only; name those that learn.")
        if unknown := [name for name in chosen if name not in student.features]:
            have = ", ".join(student.features)
            raise ValueError(f"BYOT: the student has no stage {unknown[0]!r}; it has {have}.")
        return chosen

    def _bottleneck(self, x: Array, width: int, stage: str) -> Float[Array, "b width"]:
        axis = AXIS if self.sync_batch_norm else None
        conv = nn.Conv(width, (3, 3), padding=1, kernel_init=kaiming_fan_out, name=f"conv_{stage}")
        norm = nn.BatchNorm(
            use_running_average=False, momentum=0.9, axis_name=axis, name=f"bn_{stage}"
        )
        return nn.relu(norm(conv(x.astype(jnp.float32)))).mean(axis=(1, 2))
