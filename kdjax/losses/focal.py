"""Focal loss (Lin et al., 2017, arXiv:1708.02002)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.class_weights import WeightedLabelLoss
from kdjax.types import Batch, Outputs


class Focal(WeightedLabelLoss):
    """`-sum_c w_c q_c (1 - p_c)^gamma log p_c`, `p = softmax(z_s)`, the rest as in `CrossEntropy`.

    Examples that are classified well already count little. This is the form for one label an
    image: `-w_y (1 - p_y)^gamma log p_y`. The paper's is the binary one, a sigmoid for each class;
    its `alpha` are the `class_weights`.
    """

    gamma: float = 2.0
    """How little a sure answer counts; 0: as much as in `CrossEntropy`."""

    def check(self) -> None:
        """A sure answer counts less, not more."""
        super().check()
        require("gamma", self.gamma, self.gamma >= 0, ">= 0")

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example."""
        log_p = jax.nn.log_softmax(student.logits)
        rest = -jnp.expm1(log_p)
        # At zero, where the power of a gamma below 1 is infinitely steep, log p is zero too.
        counts = jnp.where(rest > 0, jnp.where(rest > 0, rest, 1.0) ** self.gamma, 0.0)
        classes = log_p.shape[-1]
        target = self.weights(classes) * self.target(batch, classes)
        return -jnp.sum(target * counts * log_p, axis=-1)
