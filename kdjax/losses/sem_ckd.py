"""Semantic calibration across layers (Chen et al., 2021, arXiv:2012.03236)."""

from itertools import product
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import (
    DistillationLoss,
    Tap,
    require_teacher,
    require_temperature,
    unit,
)
from kdjax.losses.conv_norm import ConvNorm
from kdjax.losses.stages import chosen_stages, maps, pool_to_common
from kdjax.types import Batch, Outputs


class SemCKD(DistillationLoss):
    """`mean_n mean_i sum_j a_nij mean((project_ij(F_s,i) - F_t,j)²)` over all pairs of stages.

    The attention of example n says which of the teacher's stages suits a stage of the student:
    `a_nij = softmax_j(q_ni · k_nj / T)`. Queries and keys are embeddings of length one that two
    dense layers, one pair a stage, make of the example's similarities to the batch, a row of
    `vec(F) vec(F)ᵀ`. The projection is 1x1, 3x3 and 1x1 convolutions, twice as wide as the
    teacher's map in between, with batch norm and ReLU. The larger of two maps is average-pooled to
    the smaller.

    The dense layers have an input for each example of the batch, by its place; in the authors'
    code as many as the batch has. Here their number is fixed, so that parameters do not depend on
    the batch: examples beyond it are compared with those within, and what a smaller batch lacks
    counts as zero.

    Usual weight: 400.
    """

    stages: tuple[str, ...] = ()
    """Stages of the student; empty: all."""
    teacher_stages: tuple[str, ...] = ()
    """Stages of the teacher; empty: all."""
    anchors: int = 64
    """Examples, the first of the batch, that each is compared with; the batch of the benchmark."""
    temperature: float = 1.0
    """Divides the products of queries and keys; positive."""

    whole_batch: ClassVar[bool] = True

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """Every stage of the student with every one of the teacher."""
        ours = chosen_stages(self, "student", student, self.stages)
        theirs = chosen_stages(self, "teacher", teacher, self.teacher_stages)
        return tuple(product(ours, theirs))

    def check(self) -> None:
        """Embeddings have a quarter as many values as there are anchors."""
        require("anchors", self.anchors, self.anchors >= 4, "at least 4")
        require_temperature(self.temperature)

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Squared activation of the whole batch."""
        teacher = require_teacher(self, teacher)
        taps = self.taps(student, teacher)
        ours, theirs = (tuple(dict.fromkeys(side)) for side in zip(*taps, strict=True))
        queries = [self._embed(student.features[name], f"query_{name}") for name in ours]
        keys = [self._embed(teacher.features[name], f"key_{name}") for name in theirs]
        energy = jnp.einsum("ibd,jbd->bij", jnp.stack(queries), jnp.stack(keys))
        attention = nn.softmax(energy / self.temperature, axis=-1)
        gaps = [self._gap(*maps(student, teacher, tap), "_".join(tap)) for tap in taps]
        gap = jnp.stack(gaps, axis=-1).reshape(attention.shape)
        return jnp.sum(attention * gap, axis=-1).mean()

    def _embed(self, features: Array, name: str) -> Float[Array, "b d"]:
        flat = features.astype("float32").reshape(len(features), -1)
        similarity = jnp.matmul(flat, flat[: self.anchors].T, precision=jax.lax.Precision.HIGHEST)
        missing = self.anchors - similarity.shape[-1]
        x = jnp.pad(similarity, ((0, 0), (0, missing)))
        width = self.anchors // 4
        x = nn.relu(nn.Dense(2 * width, name=f"{name}_hidden")(x))
        return unit(nn.Dense(width, name=name)(x))

    def _gap(self, f_s: Array, f_t: Array, name: str) -> Float[Array, " b"]:
        f_s, f_t = pool_to_common(f_s, f_t)
        width = f_t.shape[-1]
        x = nn.relu(ConvNorm(2 * width, 1, sync=False, name=f"{name}_in")(f_s))
        x = nn.relu(ConvNorm(2 * width, 3, sync=False, name=f"{name}_middle")(x))
        x = nn.Conv(width, (1, 1), use_bias=False, name=f"{name}_out")(x)
        return jnp.square(x - f_t).mean(axis=(1, 2, 3))
