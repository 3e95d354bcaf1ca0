"""Transformed teacher matching (Zheng & Yang, ICLR 2024, arXiv:2402.11148)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs


class TTM(DistillationLoss):
    """`KL(softmax(z_t / T) || softmax(z_s))`: the teacher alone has a temperature.

    With `weighted`, WTTM: each example counts `U = sum_c p_c^(1/T)` of the teacher's answer
    `p = softmax(z_t)`, more the smoother that is; from 1 to `classes^(1 - 1/T)`.

    There is no factor T². The authors give `1 / T`, the exponent of the power transform.

    Usual weight: 45 for vgg13 and vgg8 on CIFAR-100, at the default temperature and not weighted;
    theirs differ by pair.
    """

    temperature: float | Ramp = 10.0
    """Divides the teacher's logits; positive."""
    weighted: bool = False
    """Whether examples with a smoother answer count more."""

    def check(self) -> None:
        """The temperature is positive."""
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times U if weighted."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        powers = jax.nn.log_softmax(teacher.logits) / temperature
        log_u = jax.nn.logsumexp(powers, axis=-1)
        log_p = powers - log_u[:, None]
        log_q = jax.nn.log_softmax(student.logits)
        divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
        return jnp.exp(log_u) * divergence if self.weighted else divergence
