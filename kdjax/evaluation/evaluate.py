"""Evaluating a network on a split: every example counted once, on any number of devices."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from kdjax.data.pipeline import batch_shapes, evaluation_batches, prefetch
from kdjax.data.sources import Source
from kdjax.evaluation.metrics import Sums, chosen_sums, summarise, sums
from kdjax.experiment import Measure
from kdjax.experiment.metrics import named
from kdjax.models import Model, infer
from kdjax.models.summary import abstract_variables
from kdjax.training.loop import Teaching
from kdjax.training.parallel import Devices, fetch, in_flight
from kdjax.types import AXIS, Batch, Variables


class Evaluate:
    """From variables (on the host, or already replicated) to metrics.

    Compiled once and used for every validation of a run. The last batch is padded and masked.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        devices: Devices,
        batch_size: int,
        teacher: Teaching | None = None,
        metrics: Sequence[Measure] = (),
    ) -> None:
        """`teacher`: whose answers are compared. `metrics`: those that the experiment chose."""
        self._model, self._source, self._devices = model, source, devices
        self._metrics = named(metrics, taught=teacher is not None)
        on_device = partial(_sums_on_device, model, teacher, self._metrics)
        self._program = devices.spread(on_device, donate=False)
        self._size = _global_size(source, devices, batch_size)
        self._rows = devices.rows(self._size)
        self._teacher = devices.replicate(teacher.variables) if teacher else None

    def ahead(self, compiler: Executor) -> None:
        """Have the program compiled by the time it is called."""
        batch = batch_shapes(self._source, len(self._rows))
        variables = abstract_variables(self._model, batch.image.shape[1:])
        self._program.ahead(compiler, *self._devices.shapes(variables, self._teacher, batch))

    def __call__(self, variables: Variables) -> dict[str, Any]:
        """Of all examples, each counted once."""
        if not isinstance(jax.tree.leaves(variables)[0], jax.Array):
            variables = self._devices.replicate(variables)
        batches = evaluation_batches(self._source, self._size, self._rows)
        placed = prefetch(map(self._devices.split, batches))
        parts = (self._program(variables, self._teacher, batch) for batch in placed)
        # float64 on the host: a float32 sum stops counting at 16.7 million.
        fetched = [jax.tree.map(np.float64, fetch(part)) for part in in_flight(parts)]
        total = jax.tree.map(lambda *xs: np.sum(xs, axis=0), *fetched)
        return summarise(total, self._metrics)


def _sums_on_device(
    model: Model,
    teacher: Teaching | None,
    metrics: Mapping[str, Measure],
    variables: Variables,
    teacher_variables: Variables | None,
    batch: Batch,
) -> Sums:
    student, target = infer(model, variables, batch.image), None
    if teacher is not None and teacher_variables is not None:
        target = infer(teacher.model, teacher_variables, batch.image)
    found = sums(student.logits, target.logits if target else None, batch)
    found["metrics"] = chosen_sums(metrics, student, target, batch)
    return jax.lax.psum(found, AXIS)


def answers(
    model: Model, variables: Variables, source: Source, devices: Devices, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of every example, the same in every process; for a few thousand."""

    def on_device(variables: Variables, _: None, batch: Batch) -> tuple[Array, Array, Array]:
        found = (infer(model, variables, batch.image).logits, batch.label, batch.mask)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), found)

    spread = devices.spread(on_device, donate=False)
    size = _global_size(source, devices, batch_size)
    placed = devices.replicate(variables)
    batches = map(devices.split, evaluation_batches(source, size, devices.rows(size)))
    parts = in_flight(spread(placed, None, batch) for batch in batches)
    logits, labels, mask = map(np.concatenate, zip(*map(fetch, parts), strict=True))
    return logits[mask], labels[mask]


def _global_size(source: Source, devices: Devices, batch_size: int) -> int:
    """A batch no larger than the split, in equal parts for all devices."""
    return -(-min(batch_size, len(source)) // devices.count) * devices.count
