"""Timing programs that take turns, so that what else happens on the machine hits all alike."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax

from kdjax.progress import tracked

SHORTEST = 0.05
"""Seconds a program is repeated for, at least, before the clock is read."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of one call of a program."""

    seconds: float
    """Median by the clock."""
    fastest: float
    """Shortest by the clock."""
    processor: float
    """Median of the processor time of this process, which other work disturbs less."""
    calls: int
    """That were timed."""


def interleaved(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Time programs one after the other, over and over. What they return is waited for."""
    compiled = tracked(programs.items(), len(programs), "programs compiled")
    repeats = {name: _repeats(program) for name, program in compiled}
    clock: dict[str, list[float]] = {name: [] for name in programs}
    processor: dict[str, list[float]] = {name: [] for name in programs}
    for _ in tracked(range(rounds), rounds, "rounds timed"):
        for name, program in programs.items():
            seconds, used = _timed(program, repeats[name])
            clock[name].append(seconds / repeats[name])
            processor[name].append(used / repeats[name])
    return {
        name: Timing(
            seconds=median(clock[name]),
            fastest=min(clock[name]),
            processor=median(processor[name]),
            calls=rounds * repeats[name],
        )
        for name in programs
    }


def a_call(program: Callable[[], Any], calls: int) -> float:
    """Seconds of one, the mean of these, compiled before."""
    return _timed(program, calls)[0] / calls


def load() -> float:
    """Programs that wanted a processor in the last minute, this one among them."""
    return round(os.getloadavg()[0], 2)


def _repeats(program: Callable[[], Any]) -> int:
    _timed(program, 1)  # compiles, and warms up
    seconds, _ = _timed(program, 1)
    return max(1, round(SHORTEST / max(seconds, 1e-6)))


def _timed(program: Callable[[], Any], repeats: int) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    result = None
    for _ in range(repeats):
        result = program()
    jax.block_until_ready(result)
    return time.perf_counter() - clock, time.process_time() - processor
