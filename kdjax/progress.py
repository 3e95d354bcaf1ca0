"""Progress of work that may take long: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds of silence before a bar is shown."""
INTERVAL = 30.0
"""Seconds between two lines of a log."""


def tracked(items: Iterable[T], total: int | None, text: str, step: int = 1) -> Iterator[T]:
    """The same items, of `step` units each, with progress on stderr if they take long.

    `total` units in all; None: nobody knows.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    live = sys.stderr.isatty()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not live)
    task, said, shown, done = bar.add_task(text, total=total), time.monotonic(), False, 0
    try:
        for item in items:
            yield item
            done = done + step if total is None else min(done + step, total)
            now = time.monotonic()
            if live and not shown and now - said > PATIENCE:
                bar.start()
                shown = True
            if shown:
                bar.update(task, completed=done)
            elif now - said > INTERVAL and not live:
                of_all = "" if total is None else f" of {total:,}"
                console.print(f"{text}: {done:,}{of_all}", markup=False)
                said = now
    finally:
        bar.stop()
