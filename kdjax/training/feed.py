"""What the devices are fed with: images that stay there, and batches on their way.

Knows no step and no log.
"""

import math
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from kdjax.data.pipeline import TrainingStream, batch_shapes
from kdjax.data.sources import InMemory, Records, Source
from kdjax.experiment import Run, Runtime
from kdjax.training.answers import KeptTeacher
from kdjax.training.cadence import Due
from kdjax.training.parallel import Devices
from kdjax.training.state import Fixed
from kdjax.types import Batch, Variables

RESIDENT_BYTES = 1024**3
"""Training images that take more than this are fed from the host, unless told otherwise."""
TOGETHER = 16
"""Steps that are started at once where the host has nothing to feed."""


class Feed:
    """The batches of a run, and what all its steps read."""

    def __init__(
        self, run: Run, source: Source, devices: Devices, runtime: Runtime, kept: KeptTeacher | None
    ) -> None:
        """`kept`: answers of the teacher that come with the batches."""
        fit = run.fit
        self._source, self._devices, self._kept = source, devices, kept
        self._rows = devices.rows(fit.batch_size, fit.accumulate)
        self._stream = stream_of(run, source)
        self._resident = resident_images(source, runtime.resident, devices)
        self.together = runtime.steps_per_dispatch or steps_per_dispatch(self._resident)
        """Steps that are started at once."""

    def fixed(self, teacher: Variables | None) -> Fixed:
        """Images and teacher, on every device."""
        devices, fixed = self._devices, Fixed()
        if self._resident is not None:
            images, labels = devices.replicate((self._resident.images, self._resident.labels))
            fixed = Fixed(images=images, labels=labels)
        if self._kept is not None and jax.process_count() == 1:
            self._kept.start(devices, fixed)
        return fixed if teacher is None else fixed._replace(teacher=devices.replicate(teacher))

    def shapes(self, teacher: Variables | None) -> tuple[Fixed, Batch] | None:
        """What `fixed` and a batch will be; None if that takes answers of the teacher."""
        if self._kept is not None:
            return None
        batch = batch_shapes(self._source, len(self._rows))
        if self._resident is None:
            return Fixed(teacher), batch
        shape = self._resident.shape
        images = jax.ShapeDtypeStruct(shape, np.uint8)
        labels = jax.ShapeDtypeStruct(shape[:1], np.int32)
        return Fixed(teacher, images, labels), batch._replace(image=None, label=None)

    def batches(self, moments: Iterable[Due]) -> Iterator[tuple[Due, Batch]]:
        """The batches of steps that are started together, on the devices."""
        for due in moments:
            batches = [self._batch(step) for step in due.steps]
            alone = len(batches) == 1
            placed = self._devices.split(batches[0]) if alone else self._devices.split_all(batches)
            yield due, placed

    def save(self) -> None:
        """Put on disk what a run that goes on from here would miss: answers of the teacher."""
        if self._kept is not None:
            self._kept.save()

    def _batch(self, step: int) -> Batch:
        read = self._stream.batch if self._resident is None else self._stream.names
        batch = read(step, self._rows)
        return batch if self._kept is None else self._kept.completed(batch)


def stream_of(run: Run, source: Source) -> TrainingStream:
    """The batches of a run, in their order."""
    data = run.data
    return TrainingStream(
        source, run.fit.batch_size, run.seed, data.views, data.cycle, data.sampling
    )


def resident_images(source: Source, asked: bool | None, devices: Devices) -> InMemory | None:
    """The split, if it is to be kept on the devices. On a CPU that would only be a copy."""
    if isinstance(source, Records):
        if asked:
            raise ValueError(
                "runtime.resident: the training images are too many to be held in memory; leave "
                "it unset, and they are read while training goes on."
            )
        return None
    if asked is None:
        asked = math.prod(source.shape) <= RESIDENT_BYTES and devices.all[0].platform != "cpu"
    return source if asked else None


def steps_per_dispatch(resident: InMemory | None) -> int:
    """Rolled loops are slow on a CPU, and unrolled ones take long to compile."""
    return TOGETHER if resident is not None and jax.default_backend() != "cpu" else 1
