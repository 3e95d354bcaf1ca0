"""Correlation congruence (Peng et al., 2019, arXiv:1904.01802), as it is benchmarked."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require, require_teacher
from kdjax.types import Batch, Outputs


class CC(DistillationLoss):
    """`mean over i of sum(|D_i| |D_{i+1}|)`, with `D_i = embed_s(e_s,i) - embed_t(e_t,i)`.

    Each example of the global batch with the next one; both embeddings pass a dense layer of their
    own. This is the form of RepDistiller, whose numbers are quoted everywhere; the paper compares
    matrices of a kernel between all examples instead. Usual weight: 0.02.
    """

    width: int = 128
    """Length of the embeddings that are compared."""

    whole_batch: ClassVar[bool] = True

    def check(self) -> None:
        """There is something to compare."""
        require("width", self.width, self.width >= 1, "at least 1")

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Squared activation."""
        teacher = require_teacher(self, teacher)
        ours = nn.Dense(self.width, precision="highest", name="student")
        theirs = nn.Dense(self.width, precision="highest", name="teacher")
        gap = ours(student.embedding.astype("float32"))
        gap = jnp.abs(gap - theirs(teacher.embedding.astype("float32")))
        return jnp.sum(gap[:-1] * gap[1:]) / max(1, gap.shape[0] - 1)
