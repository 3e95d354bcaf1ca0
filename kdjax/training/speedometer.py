"""How fast a run is."""

import time

from kdjax.training.parallel import IN_FLIGHT


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
