"""Contrastive representation distillation (Tian et al., 2020, arXiv:1910.10699)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, unit
from kdjax.types import Batch, Labels, Outputs

UNSEEN = -1
"""In place of a label: nothing is remembered here yet."""


class CRD(DistillationLoss):
    """Tell the teacher's embedding of an example from those of other classes, and vice versa.

    Both embeddings are projected and normalised, `v_s` and `v_t`; a bank remembers both for each
    example. With the `K` negatives and `r(v, m) = exp(v · m / T) / (K z)`, the student's half is

    `-log(r(v_s, m_i) / (1 + r(v_s, m_i))) + sum_k log(1 + r(v_s, m_k))`

    where `m_i` is the example's own row in the teacher's bank and `m_k` are `K` rows of other
    classes; the teacher's half is the same with the sides exchanged. `z` is the mean of
    `exp(v · m / T)` over the first batch and the bank as drawn, a constant from then on, one for
    each side. (The authors write `Z = n z` and noise `1 / n` for `n` examples; `n` cancels.)

    The authors draw the `K` rows anew for each example. Here the sum over them is its expectation:
    `K` times the mean over all rows of other classes that were seen. That is exact and without the
    noise of drawing, and one matrix product instead of `b · K` gathered rows. Rows that no example
    has filled yet are left out, though the authors draw them too, so there are no negatives in
    the first batch. The 1e-7 which they add to their denominators is not needed.

    After the loss the batch's rows become `unit(momentum · old + (1 - momentum) · new)`; the last
    counts where an example occurs twice. The bank takes `2 · n · width` floats, the products
    `2 · b · n`: where that is too much see `rows`, and `ContrastiveQueue`. Usual weight: 0.8.
    """

    negatives: int = 16384
    """Negatives of each example, `K`."""
    temperature: float = 0.07
    """Divides the cosines, `T`; positive."""
    momentum: float = 0.5
    """Share of a row that stays when its example is seen again, in [0, 1)."""
    width: int = 128
    """Dimensions that both embeddings are projected to."""
    examples: int = 0
    """Rows of the bank; 0: as many as the training split has examples."""
    rows: int | None = None
    """Look for negatives in so many rows, drawn anew in each step; None: in all."""

    whole_batch: ClassVar[bool] = True
    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """There is something to compare with, at a positive temperature."""
        require("negatives", self.negatives, self.negatives > 0, "at least 1")
        require("temperature", self.temperature, self.temperature > 0, "positive")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        require("width", self.width, self.width > 0, "at least 1")
        require("examples", self.examples, self.examples >= 0, "at least 0")
        require("rows", self.rows, self.rows is None or self.rows > 0, "at least 1")

    def for_examples(self, examples: int, per_class: Sequence[int] = ()) -> "CRD":
        """With a row for each. ValueError if fewer were asked for."""
        enough = self.examples == 0 or self.examples >= examples
        require("examples", self.examples, enough, f"0 or at least {examples} for this data")
        return self if self.examples else self.clone(examples=examples)

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Nats, mean over the batch, sum of both halves."""
        teacher = require_teacher(self, teacher)
        require("examples", self.examples, self.examples > 0, "set; for_examples does so")
        v_s = project(student.embedding, self.width, "project_student")
        v_t = project(teacher.embedding, self.width, "project_teacher")
        bank = self.variable("memory", "bank", self._drawn_rows)
        label = self.variable("memory", "label", jnp.full, (self.examples,), UNSEEN, jnp.int32)
        log_z = self.variable("memory", "log_z", jnp.zeros, (2,))

        # The student's rows lie first in the bank; they are compared with the teacher's embeddings.
        anchors, new = jnp.stack([v_t, v_s]), jax.lax.stop_gradient(jnp.stack([v_s, v_t]))
        own = bank.value[:, batch.index]
        looked_at = self._looked_at()
        near = jnp.einsum("sbd,sbd->sb", anchors, own) / self.temperature
        far = _products(anchors, bank.value[:, looked_at]) / self.temperature
        others = _of_other_classes(batch.label, label.value[looked_at])
        first = jnp.all(label.value == UNSEEN)
        z = jax.lax.cond(first, _log_mean, lambda _: log_z.value, jax.lax.stop_gradient(far))
        loss = self._contrast(near, far, others, z)
        if not self.is_initializing():
            mixed = unit(self.momentum * own + (1 - self.momentum) * new)
            last = last_of_each(batch.index, self.examples)
            bank.value = bank.value.at[:, batch.index].set(mixed[:, last])
            label.value = label.value.at[batch.index].set(batch.label)
            log_z.value = z
        return loss

    def _drawn_rows(self) -> Float[Array, "2 n d"]:
        """Of length one on average."""
        limit = math.sqrt(3 / self.width)
        shape = (2, self.examples, self.width)
        return jax.random.uniform(self.make_rng("params"), shape, minval=-limit, maxval=limit)

    def _looked_at(self) -> slice | Int[Array, " rows"]:
        if self.rows is None:
            return slice(None)
        return jax.random.randint(self.make_rng("loss"), (self.rows,), 0, self.examples)

    def _contrast(
        self,
        near: Float[Array, "2 b"],
        far: Float[Array, "2 b n"],
        others: Bool[Array, "b n"],
        log_z: Float[Array, " 2"],
    ) -> Float[Array, ""]:
        shift = log_z + math.log(self.negatives)
        positive = jax.nn.softplus(shift[:, None] - near)
        negative = jnp.where(others, jax.nn.softplus(far - shift[:, None, None]), 0).sum(axis=-1)
        mean = negative / jnp.maximum(others.sum(axis=-1), 1)
        return jnp.sum(jnp.mean(positive + self.negatives * mean, axis=-1))


def project(embedding: Array, width: int, name: str) -> Float[Array, "b width"]:
    """A linear layer, of length one; inside a module's compact method."""
    layer = nn.Dense(width, name=name, precision="highest")
    return unit(layer(embedding.astype(jnp.float32)))


def _products(v: Float[Array, "2 b d"], rows: Float[Array, "2 n d"]) -> Float[Array, "2 b n"]:
    # In full precision: what is lost in a cosine is divided by the temperature and exponentiated.
    return jnp.einsum("sbd,snd->sbn", v, rows, precision="highest")


def _of_other_classes(ours: Labels, theirs: Int[Array, " n"]) -> Bool[Array, "b n"]:
    return (theirs != UNSEEN) & (theirs != ours[:, None])


def _log_mean(far: Float[Array, "2 b n"]) -> Float[Array, " 2"]:
    """The logarithm of the mean of the exponentials."""
    return jax.nn.logsumexp(far, axis=(1, 2)) - math.log(far[0].size)


def last_of_each(index: Int[Array, " b"], examples: int) -> Int[Array, " b"]:
    """Where in the batch each example is for the last time, so that no order of writing matters."""
    place = jnp.arange(len(index))
    return jnp.zeros(examples, place.dtype).at[index].max(place)[index]
