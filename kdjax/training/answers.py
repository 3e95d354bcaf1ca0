"""Answers of a teacher for the steps of a run: read from disk, or asked for and added there."""

from collections.abc import Callable

import numpy as np

from kdjax.cache.answers import Answers, encode
from kdjax.cache.filling import Filling
from kdjax.cache.origin import Origin
from kdjax.cache.store import Store, from_records, to_records
from kdjax.data.augment import augment
from kdjax.models import infer
from kdjax.training.parallel import Devices
from kdjax.training.state import Fixed
from kdjax.types import Batch, Variables

Ask = Callable[[Batch], np.ndarray]
"""From a batch on the host to the records of its examples."""


def make_ask(origin: Origin, record: np.dtype, devices: Devices, fixed: Fixed) -> Ask:
    """The teacher in evaluation mode on the views it is shown. No device waits for another."""

    def on_device(fixed: Fixed, batch: Batch) -> Answers:
        batch = fixed.look_up(batch)
        seen = augment(origin.augment, origin.seed, batch, origin.stream)
        assert fixed.teacher is not None
        return encode(origin.kept, infer(origin.model, fixed.teacher, seen.image))

    each = devices.each(on_device)

    def ask(batch: Batch) -> np.ndarray:
        return to_records(each(fixed, batch), record)

    return ask


class KeptTeacher:
    """A teacher whose answers are on disk, or will be."""

    def __init__(self, store: Store, variables: Variables) -> None:
        self.store, self.variables = store, variables
        self._filling = Filling(store)
        self._ask: Ask | None = None

    def start(self, devices: Devices, fixed: Fixed) -> None:
        """From here on the teacher can be asked for what is missing; `fixed` has the images.

        Only where one process trains: of several, each would know a part of a batch.
        """
        fixed = fixed._replace(teacher=devices.replicate(self.variables))
        self._ask = make_ask(self.store.origin, self.store.record, devices, fixed)

    def completed(self, batch: Batch) -> Batch:
        """A batch on the host, with its answers."""
        return batch._replace(answers=from_records(self._records(batch)))

    def save(self) -> None:
        """Put what was asked for on disk, so that nothing is lost with what is in memory."""
        self._filling.save()

    def _records(self, batch: Batch) -> np.ndarray:
        view, index = batch.view, batch.index
        if self.store.has(view, index):
            return self.store.read(view, index)
        records = self._fill(batch)
        self._filling.add(view, index, records)
        return records

    def _fill(self, batch: Batch) -> np.ndarray:
        assert self._ask is not None
        return self._ask(batch)
