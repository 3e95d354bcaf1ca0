"""How a job learns that its machine is about to be taken away. Knows no loop and no checkpoint."""

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

EXIT_PREEMPTED = 75
"""Exit code for "stopped on request, everything saved: run the same command again"."""


class Preemption:
    """SIGTERM as a question that is asked once a step; a context manager.

    Alone, a process notes the signal in a handler that is put back at the end; outside the main
    thread, where Python allows no handlers, it notices nothing. Several processes agree through
    JAX, whichever of them got the signal, and all see True at the same poll. They must therefore
    poll equally often, and a process has one `Preemption` for all its runs, entered after
    `connect`.
    """

    def __init__(self) -> None:
        self._together = jax.distributed.is_initialized()
        self._requested = False
        # JAX answers True for a single counter value: one that skips may never meet it, and one
        # that starts again may meet it on some processes only.
        self._polls = 0

    def __enter__(self) -> "Preemption":
        self._handles = not self._together and threading.current_thread() is threading.main_thread()
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handles:
            # None stands for a handler that was not installed from Python.
            signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)

    def poll(self) -> bool:
        """Whether to save and stop now; stays True."""
        if self._together and not self._requested:
            self._polls += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._polls)
        return self._requested

    def _notice(self, signum: int, frame: FrameType | None) -> None:
        self._requested = True
