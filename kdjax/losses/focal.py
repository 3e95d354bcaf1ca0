"""Focal loss (Lin et al., 2017, arXiv:1708.02002)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.label_loss import LabelLoss
from kdjax.types import Batch, Outputs


class Focal(LabelLoss):
    """`-sum_c q_c (1 - p_c)^gamma log p_c`, with `p = softmax(z_s)` and `q` as in `CrossEntropy`.

    Examples that are classified well already count little. This is the form for one label an
    image: `-(1 - p_y)^gamma log p_y`. The paper's is the binary one, a sigmoid for each class.
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
        return -jnp.sum(self.target(batch, log_p.shape[-1]) * counts * log_p, axis=-1)
