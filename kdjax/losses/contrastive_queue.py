"""Contrast with a queue instead of a bank (He et al., 2020, arXiv:1911.05722).

Its negatives are embeddings of the teacher, as in SEED (Fang et al., 2021, arXiv:2101.04731).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.losses.crd import UNSEEN, project
from kdjax.types import Batch, Outputs


class ContrastiveQueue(DistillationLoss):
    """`-log(exp(v_s · v_t / T) / sum_k exp(v_s · v_k / T))`: InfoNCE of the student's embedding.

    `v_s` and `v_t` are projected and normalised embeddings of the same example. The sum is over
    `v_t` and the embeddings `v_k` of other classes, in the batch and among the last `size` before
    it. It is what CRD is after with no row for each example, for data too large for that.

    The queue holds what the teacher said, which does not change, and projects it anew in each step;
    so nothing in it is stale, and no second network is needed to keep it so. MoCo and SEED know no
    labels and count examples of the same class as negatives too. Usual weight: 1.
    """

    size: int = 16384
    """Embeddings of the teacher that are remembered; 0: negatives are of the same batch only."""
    temperature: float = 0.07
    """Divides the cosines, `T`; positive."""
    width: int = 128
    """Dimensions that both embeddings are projected to."""

    whole_batch: ClassVar[bool] = True
    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """There is something to compare with, at a positive temperature."""
        require("size", self.size, self.size >= 0, "at least 0")
        require("temperature", self.temperature, self.temperature > 0, "positive")
        require("width", self.width, self.width > 0, "at least 1")

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Nats, mean over the batch."""
        teacher = require_teacher(self, teacher)
        keys, labels = self._with_queue(teacher.embedding.astype(jnp.float32), batch.label)
        v_s = project(student.embedding, self.width, "project_student")
        v_k = project(keys, self.width, "project_teacher")
        scores = jnp.matmul(v_s, v_k.T, precision="highest") / self.temperature
        own = jnp.eye(len(v_s), len(v_k), dtype=bool)
        compared = own | ((labels != UNSEEN) & (labels != batch.label[:, None]))
        above = scores - jnp.diagonal(scores)[:, None]
        return jax.nn.logsumexp(jnp.where(compared, above, -jnp.inf), axis=-1).mean()

    def _with_queue(
        self, new: Float[Array, "b d"], label: Array
    ) -> tuple[Float[Array, "n d"], Array]:
        """The batch, and after it what was remembered; the batch is remembered next, oldest out."""
        if not self.size:
            return new, label
        queue = self.variable("memory", "embedding", jnp.zeros, (self.size, new.shape[-1]))
        labels = self.variable("memory", "label", jnp.full, (self.size,), UNSEEN, jnp.int32)
        keys = jnp.concatenate([new, queue.value])
        all_labels = jnp.concatenate([label, labels.value])
        if not self.is_initializing():
            queue.value = jax.lax.stop_gradient(keys[: self.size])
            labels.value = all_labels[: self.size]
        return keys, all_labels
