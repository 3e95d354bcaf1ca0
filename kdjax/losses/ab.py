"""Activation boundaries (Heo et al., 2019, arXiv:1811.03233)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import require_teacher
from kdjax.losses.conv_norm import ConvNorm
from kdjax.losses.stages import StagesLoss, maps_before_relu, pool_to_common
from kdjax.types import Batch, Outputs


class AB(StagesLoss):
    """Be active where the teacher is, and by a margin.

    With `F` the maps before the last ReLU of a stage and `m` the margin, a squared hinge for each
    neuron: `max(0, m - sign(F_t) F_s)²`, where `sign(0) = -1`. Summed over pixels and channels;
    stage i of n counts `2^(i-n)`, the last one 1; all times 3/1000, as in the authors' code.

    Where the numbers of channels differ, the student's map is brought to the teacher's by a 1x1
    convolution without bias and batch norm. Maps of different sizes: the larger is average-pooled
    to the smaller.

    It prepares a student, which cross-entropy then trains alone: the objective of a first phase
    that leaves out the classifier. Usual weight: 1, for 30 epochs.
    """

    margin: float = 1.0
    """How far from the boundary is far enough; positive."""
    sync_batch_norm: bool = True
    """Normalise the connectors over the global batch."""

    def check(self) -> None:
        """Without a margin a student that is zero everywhere is perfect."""
        require("margin", self.margin, self.margin > 0, "positive")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(student.logits.shape[0])
        for tap in self.taps(student, teacher):
            f_s, f_t = pool_to_common(*maps_before_relu(student, teacher, tap))
            if f_s.shape[-1] != f_t.shape[-1]:
                name = f"connector_{tap[0]}"
                f_s = ConvNorm(f_t.shape[-1], sync=self.sync_batch_norm, name=name)(f_s)
            side = jnp.where(f_t > 0, 1.0, -1.0)
            hinge = jnp.square(nn.relu(self.margin - side * f_s)).sum(axis=(1, 2, 3))
            # Each stage halves what the earlier ones count.
            total = total / 2 + hinge
        return 3 / 1000 * total
