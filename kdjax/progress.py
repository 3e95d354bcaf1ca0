"""How far long work is: a live bar on a terminal, a line every so often in a pipe or a job log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

QUIET = 10.0
"""Seconds between two lines."""


def tracked(items: Iterable[T], total: int, what: str, *, speaks: bool = True) -> Iterator[T]:
    """The same items; `what` is being done to them."""
    if not speaks:
        yield from items
        return
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if sys.stderr.isatty():
        yield from track(items, what, total, console=console, transient=True)
        return
    began = told = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - told > QUIET:
            told, left = now, (now - began) / done * (total - done)
            console.print(f"{what}: {done} of {total}, {left:.0f} s left", markup=False)
