"""Multi-level logit distillation (Jin et al., 2023, CVPR)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.losses.soft_target import soft_target
from kdjax.types import Batch, Outputs


class MLKD(DistillationLoss):
    """`sum_T (instance · KD + batch · B + classes · C)`, of probabilities `P = softmax(Z / T)`.

    - KD: `T² KL(P_t || P_s)`, averaged over the examples;
    - B: `sum((P_t P_tᵀ - P_s P_sᵀ)²) / examples`: which examples are alike;
    - C: `sum((P_tᵀ P_t - P_sᵀ P_s)²) / classes`: which classes are confused.

    This is the loss of one view of each image. The authors' code has a second view, strongly
    augmented, on which it measures KD too. It multiplies what it measures on the first view by
    masks, of examples or classes whose confidence is not above the median, but after the sums, so
    that a mask is no more than a factor of about one half. Were both views the same, that would
    be the defaults, 1.5, 0.5 and 0.5; in the paper all three count 1.

    Usual weight: 0.9, beside 0.2 of the cross-entropy, which the authors' code takes of both views
    with 0.1 each.
    """

    temperatures: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0)
    """Each divides both logits and gives one summand; positive."""
    instance: float = 1.5
    """Weight of the answers to each example."""
    batch: float = 0.5
    """Weight of the likeness of examples."""
    classes: float = 0.5
    """Weight of the confusion of classes."""

    whole_batch: ClassVar[bool] = True

    def check(self) -> None:
        """There is a temperature, all are positive, and no weight is negative."""
        temperatures = self.temperatures
        positive = bool(temperatures) and min(temperatures) > 0
        require("temperatures", temperatures, positive, "one or more, all positive")
        for field in ("instance", "batch", "classes"):
            weight = getattr(self, field)
            require(field, weight, weight >= 0, ">= 0")

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Nats times T² and squared probabilities, of the whole batch."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(())
        for temperature in self.temperatures:
            p_s = jax.nn.softmax(student.logits / temperature)
            p_t = jax.nn.softmax(teacher.logits / temperature)
            kd = soft_target(student.logits, teacher.logits, temperature).mean()
            total += self.instance * kd
            total += self.batch * apart(p_s, p_t) + self.classes * apart(p_s.T, p_t.T)
        return total


def apart(a: Float[Array, "n m"], b: Float[Array, "n m"]) -> Float[Array, ""]:
    """`sum((a aᵀ - b bᵀ)²) / n`."""
    products = (jnp.matmul(x, x.T, precision="highest") for x in (a, b))
    return jnp.square(jnp.subtract(*products)).sum() / len(a)
