"""How steps are paced: images that stay on the devices, steps that start at once, the speed."""

import time
from collections.abc import Callable, Iterator

import jax

from kdjax.data.sources import Arrays, Source
from kdjax.training.parallel import IN_FLIGHT, Devices

RESIDENT_BYTES = 1024**3
"""Training images that take more than this are fed from the host, unless told otherwise."""
TOGETHER = 16
"""Steps that are started at once where the host has nothing to feed."""


def resident_images(source: Source, asked: bool | None, devices: Devices) -> Arrays | None:
    """The split, if it is to be kept on the devices. On a CPU that would only be a copy."""
    if asked is False:
        return None
    if not isinstance(source, Arrays):
        if asked:
            raise ValueError(
                "runtime.resident: the training images are too many to be held in memory; leave "
                "it unset, and they are read while training goes on."
            )
        return None
    few = source.images.nbytes <= RESIDENT_BYTES
    return source if asked or (few and devices.all[0].platform != "cpu") else None


def steps_per_dispatch(resident: Arrays | None) -> int:
    """Rolled loops are slow on a CPU, and unrolled ones take long to compile."""
    return TOGETHER if resident is not None and jax.default_backend() != "cpu" else 1


def groups(first: int, steps: int, size: int, alone: Callable[[int], bool]) -> Iterator[range]:
    """Steps that are started together: all from `first` up to `steps`, in groups of `size`.

    A group is cut at multiples of its size; where one of its steps is to be `alone`, all of them
    are. So what is computed together depends on the number of a step, not on where a run resumed.
    """
    while first < steps:
        group = range(first, first + size)
        whole = first % size == 0 and group.stop <= steps
        if not whole or any(map(alone, group)):
            group = range(first, first + 1)
        yield group
        first = group.stop


class Speedometer:
    """Images per second between two readings, without what interrupted training."""

    def __init__(self, batch_size: int, together: int) -> None:
        """`together`: steps that arrive at once."""
        self._batch_size = batch_size
        self._few = 2 * IN_FLIGHT * together
        self._now = self._last = (0, 0.0)
        self._speed: float | None = None

    def reach(self, step: int) -> None:
        """Steps have arrived, `step` the last of them."""
        self._now = (step, time.monotonic())

    def read(self) -> float | None:
        """Speed since the last reading; None at first, while compilation still counts."""
        if not self._last[1]:
            self._last = self._now
        steps, seconds = self._now[0] - self._last[0], self._now[1] - self._last[1]
        if steps > self._few:  # fewer say nothing: they were under way
            self._speed = steps * self._batch_size / seconds
            self._last = self._now
        return self._speed

    def pause(self, seconds: float) -> None:
        """Leave out an interruption."""
        if self._last[1]:
            self._last = (self._last[0], self._last[1] + seconds)
