"""Evaluating a network on a split: every example counted once, on any number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kdjax.data.pipeline import evaluation_batches, prefetch
from kdjax.data.sources import Source
from kdjax.evaluation.metrics import Sums, summarise, sums
from kdjax.models import Model, infer
from kdjax.training.loop import Teaching
from kdjax.training.parallel import Devices, fetch, in_flight
from kdjax.types import AXIS, Batch, Variables

Evaluate = Callable[[Variables], dict[str, Any]]


def make_evaluate(
    model: Model,
    source: Source,
    devices: Devices,
    batch_size: int,
    teacher: Teaching | None = None,
) -> Evaluate:
    """A function from variables (on the host, or already replicated) to metrics.

    Compiled once and used for every validation of a run. The last batch is padded and masked.
    """

    def on_device(variables: Variables, teacher_variables: Variables | None, batch: Batch) -> Sums:
        logits = infer(model, variables, batch.image).logits
        target = None
        if teacher is not None and teacher_variables is not None:
            target = infer(teacher.model, teacher_variables, batch.image).logits
        return jax.lax.psum(sums(logits, target, batch), AXIS)

    spread = devices.spread(on_device, donate=False)
    size = -(-min(batch_size, len(source)) // devices.count) * devices.count
    rows = devices.rows(size)
    teacher_variables = devices.replicate(teacher.variables) if teacher else None

    def evaluate(variables: Variables) -> dict[str, Any]:
        if not isinstance(jax.tree.leaves(variables)[0], jax.Array):
            variables = devices.replicate(variables)
        batches = map(devices.split, evaluation_batches(source, size, rows))
        parts = (spread(variables, teacher_variables, batch) for batch in prefetch(batches))
        # float64 on the host: a float32 sum stops counting at 16.7 million.
        fetched = [jax.tree.map(np.float64, fetch(part)) for part in in_flight(parts)]
        return summarise(jax.tree.map(lambda *xs: np.sum(xs, axis=0), *fetched))

    return evaluate
