"""Wasserstein distance between answers (Lv et al., NeurIPS 2024, arXiv:2412.08139)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require, within
from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature, unit
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs

SMALL = 1e-8
"""The authors' guard, of costs and of divisors."""
LEAST_ENTROPY = 0.02
"""Below that `exp(-cost / entropy)` leaves float32, and what cannot move is lost."""


class WKD(DistillationLoss):
    """WKD-L: `p_y · CE_s + gamma · W`, how sure of the label, and how far the rest has to move.

    `p_y` is the teacher's probability of the label at T = 1, and `CE_s` the student's
    cross-entropy. W compares how both share out the other classes, `softmax(z_c / T)` over
    `c ≠ y`: the price of moving the one to the other, `sum_ij flow_ij cost_ij`, where to move
    between like classes is cheap. With the teacher's classifier `w_i`,

    `cost_ij = 1 - exp(-sharpness (1 - cos(w_i, w_j)))`,

    one of the authors' ways to tell how like two classes are. Their published numbers are with
    costs made before training from its features of all images (CKA), which kdjax has not. The flow
    is what `iterations` of Sinkhorn's algorithm with the entropy weight `entropy` come to; it is
    differentiated through them.

    Usual weight: 1, beside the labels. The authors let gamma fall to zero along a cosine from epoch
    150 to 240 on CIFAR-100: `Ramp(start=600, stop=0, begin=150, epochs=90, shape="cosine")`. On
    ImageNet it is 30, at T = 2.
    """

    gamma: float | Ramp = 600.0
    """Weight of W; not negative."""
    temperature: float | Ramp = 8.0
    """T, divides both logits in W; positive."""
    sharpness: float = 1.0
    """How quickly classes become unlike; positive."""
    entropy: float = 0.05
    """Weight of the flow's entropy, in units of the cost."""
    iterations: int = 10
    """Of Sinkhorn's algorithm; at least 1."""

    reads_classifier: ClassVar[bool] = True
    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """The weight is not negative, all else is positive."""
        if isinstance(self.gamma, Ramp):
            with within("gamma"):
                self.gamma.check()
        else:
            require("gamma", self.gamma, self.gamma >= 0, ">= 0")
        require_temperature(self.temperature)
        require("sharpness", self.sharpness, self.sharpness > 0, "positive")
        enough = self.entropy >= LEAST_ENTROPY
        require("entropy", self.entropy, enough, f"at least {LEAST_ENTROPY}, for float32")
        require("iterations", self.iterations, self.iterations >= 1, "at least 1")

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats, and prices times gamma, per example."""
        teacher = require_teacher(self, teacher)
        sure = jnp.exp(-cross_entropy(teacher.logits, batch.label))
        of_label = sure * cross_entropy(student.logits, batch.label)
        others = jax.nn.one_hot(batch.label, student.logits.shape[-1]) == 0
        temperature = at(self.temperature, batch.epoch)
        q, p = (
            jax.nn.softmax(jnp.where(others, each.logits / temperature, -jnp.inf))
            for each in (student, teacher)
        )
        gamma = jnp.ravel(jnp.asarray(at(self.gamma, batch.epoch)))
        return of_label + gamma * self._price(q, p, others)

    def _price(self, q: Array, p: Array, others: Array) -> Float[Array, " b"]:
        cost = self._cost(q.shape[-1])
        kernel = jnp.exp(-cost / self.entropy)
        u = others / others.sum(axis=-1, keepdims=True)
        for _ in range(self.iterations):
            v = p / (times(u, kernel) + SMALL)
            u = q / (times(v, kernel.T) + SMALL)
        return jnp.sum(u * times(v, (kernel * cost).T), axis=-1)

    def _cost(self, classes: int) -> Float[Array, "classes classes"]:
        if self.is_initializing():  # only shapes matter then
            return jnp.ones((classes, classes))
        of_class = unit(jnp.asarray(self.get_variable("teacher", "kernel"), "float32").T)
        # A class is like itself; rounding would make each stay of a share cost something.
        unlike = (1 - times(of_class, of_class.T)) * (1 - jnp.eye(classes))
        return jax.nn.relu(1 - jnp.exp(-self.sharpness * unlike)) + SMALL


def times(a: Float[Array, "n k"], b: Float[Array, "k m"]) -> Float[Array, "n m"]:
    """The product, in full precision on every device."""
    return jnp.matmul(a, b, precision="highest")
