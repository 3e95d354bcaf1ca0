"""One loss as one device sees it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses import DistillationLoss
from kdjax.models.reused_classifier import classifier_of
from kdjax.types import AXIS, Batch, Outputs, Variables

MUTABLE = ("batch_stats", "memory")
"""Collections that a loss changes as it goes."""


def device_loss(
    loss: DistillationLoss,
    variables: Variables,
    student: Outputs,
    teacher: Outputs | None,
    batch: Batch,
    key: Array,
) -> tuple[Float[Array, ""], Mapping[str, Any]]:
    """This device's share of the loss of the global batch, and the variables that changed.

    The shares of all devices sum to the loss, and their gradients to its gradient: a loss of the
    whole batch is computed by every device from gathered outputs, so each answers for a part of
    it, and what flows back into the outputs of others is summed where they were gathered.
    """
    if loss.whole_batch:
        student, teacher, batch = jax.lax.all_gather((student, teacher, batch), AXIS, tiled=True)
    values, changed = loss.apply(
        variables, student, teacher, batch, rngs={"loss": key}, mutable=list(MUTABLE)
    )
    return jnp.mean(values) / jax.lax.axis_size(AXIS), changed


def loss_variables(
    loss: DistillationLoss, own: Mapping[str, Any], teacher: Variables | None
) -> dict[str, Any]:
    """A loss's own variables, and the teacher's last layer if it reads that."""
    if not loss.reads_classifier:
        return dict(own)
    return {**own, "teacher": classifier_of(teacher or {}, type(loss).__name__)}
