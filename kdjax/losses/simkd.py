"""Distillation with the reused teacher classifier (Chen et al., 2022, arXiv:2203.14001)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, Tap, require_teacher
from kdjax.losses.stages import pool_to_common
from kdjax.models.stages import last_map, pooled_stage
from kdjax.types import Batch, Outputs


class SimKD(DistillationLoss):
    """`mean((P - F)²)` over pixels and channels: the projected map against the teacher's last.

    `P` is what the student's projector makes of its last map, `F` the map that the teacher's
    embedding is the mean of; the larger is average-pooled to the smaller. A student that matches it
    answers as its teacher does, since it has its teacher's classifier
    (`student.reuse_classifier = True`).

    `F` is shifted, channel by channel, so that its mean is the embedding. Nothing moves where it is
    that already, as in ResNets; but a network may do more between its last map and its classifier,
    or pooling may weigh pixels unequally, and the mean is all that the classifier reads. Where the
    teacher's embedding is the mean of no map, `F` is the embedding, a map of one pixel.

    Usual weight: 1, and no other term: neither labels nor soft targets.
    """

    needs_projector: ClassVar[bool] = True

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """The projected map and the teacher's last stage; none where that is the embedding."""
        stage = pooled_stage(teacher)
        return (("projected", stage),) if stage else ()

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        teacher = require_teacher(self, teacher)
        projected, target = pool_to_common(
            student.features["projected"].astype("float32"), last_map(teacher).astype("float32")
        )
        embedding = teacher.embedding.astype("float32")[:, None, None]
        target = target + (embedding - target.mean(axis=(1, 2), keepdims=True))
        return jnp.square(projected - target).mean(axis=(1, 2, 3))
