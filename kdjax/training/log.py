"""What a run says while it runs: `metrics.jsonl` for programs, one progress line for people."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kdjax.drafts import drafted


class MetricLog:
    """Appends to `metrics.jsonl`, after cutting it back to the step a run resumes from."""

    def __init__(self, path: Path, resumed_at: int, tensorboard: Path | None = None) -> None:
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resumed_at]
        with drafted(path) as draft:
            draft.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._events = _event_writer(tensorboard, resumed_at) if tensorboard else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, on disk before the call returns."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in _scalars(values):
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Let go of the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _lines(path: Path) -> list[str]:
    """The whole lines of a log; a crash may have left half a line at the end."""
    if not path.is_file():
        return []
    text = path.read_text()
    lines = text.splitlines()
    return lines if text.endswith("\n") else lines[:-1]


def _scalars(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    flat = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += [(f"{name}/{inner}", number) for inner, number in _scalars(value)]
        elif isinstance(value, int | float):
            flat.append((name, float(value)))
    return flat


def _event_writer(directory: Path, resumed_at: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "runtime.tensorboard: tensorboardX is not installed; pip install 'kdjax[tensorboard]'."
        ) from error
    return SummaryWriter(str(directory), purge_step=resumed_at + 1)


SILENCE = 60.0
"""Seconds after which a job log gets a line though nothing was validated."""


class Reporter:
    """Progress on stderr: a live line on a terminal; elsewhere plain ones, one per validation.

    Where validations are far apart there is one a minute, too.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        """Only one of several processes speaks."""
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._speaks = speaks
        self._live = speaks and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._steps, self._status = "", 0, ""
        self._began, self._first, self._said = time.monotonic(), 0, time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        self._said = time.monotonic()
        if self._speaks:
            self._console.print(text, markup=False)

    def start(self, name: str, first: int, steps: int) -> None:
        """A run begins, or goes on at step `first`."""
        self._name, self._steps, self._first = name, steps, first
        self._began = time.monotonic()
        if self._live:
            self._progress = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(24),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[status]}", markup=False),
                console=self._console,
            )
            self._progress.start()
            self._task = self._progress.add_task(name, completed=first, total=steps, status="")

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """Training metrics of one step."""
        terms = "  ".join(f"{name} {value:.3f}" for name, value in values["terms"].items())
        speed = values.get("images_per_second")
        fast = f"  {speed:,.0f} images/s" if speed else ""
        self._status = f"epoch {values['epoch']:.1f}  loss {values['loss']:.3f}  {terms}{fast}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step, status=self._status)
        elif self._speaks and time.monotonic() - self._said > SILENCE:
            self._say_where(step)

    def validated(self, step: int, metrics: Mapping[str, Any]) -> None:
        """A validation."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step)
        elif self._speaks:
            self._say_where(step, f"validation top-1 {metrics['top1']:.2%}  ")

    def _say_where(self, step: int, more: str = "") -> None:
        rate = (time.monotonic() - self._began) / max(1, step - self._first)
        left = _clock(rate * (self._steps - step))
        self.say(f"{self._name:<9} step {step}/{self._steps}  {self._status}  {more}ETA {left}")

    def stop(self) -> None:
        """The run ended, well or not."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
