"""How a student is cut from its teacher: the choice, and from one configuration to another.

Must not know weights, nor any one family: every network says itself how it shrinks.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kdjax.checks import require
from kdjax.models import Model

STEPS = 14
"""Halvings of the interval that the width lies in: finer than any network's channels."""

FRESH = "or start from fresh weights (inherit=False)."
"""What always remains where a student cannot inherit."""

Importance = Literal["l1", "bn_scale", "taylor"]
"""What a channel's importance is read off: its kernels, its batch norm scales, or the loss."""


@dataclass(frozen=True, kw_only=True)
class Derive:
    """A student made from its teacher."""

    width: float = 0.5
    """Share of the channels that is kept, in (0, 1]."""
    params: float | None = None
    """As wide as this share of the teacher's parameters allows, instead of `width`."""
    flops: float | None = None
    """As wide as this share of the teacher's operations allows, instead of `width`."""
    depth: float = 1.0
    """Share of the blocks that is kept, in (0, 1]; at least one block a stage remains."""
    inherit: bool = True
    """Start from the teacher's most important channels instead of from fresh weights."""
    importance: Importance = "l1"
    """What makes a channel important: its kernels' l1 norm, bn_scale, or taylor (needs data)."""
    recalibrate: int = 16
    """Training batches that batch norm statistics are measured on after inheriting, and that
    taylor looks at."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        require("width", self.width, 0 < self.width <= 1, "in (0, 1]")
        require("depth", self.depth, 0 < self.depth <= 1, "in (0, 1]")
        least = 1 if self.importance == "taylor" else 0
        require("recalibrate", self.recalibrate, self.recalibrate >= least, f">= {least}")
        for name in ("params", "flops"):
            share = getattr(self, name)
            require(name, share, share is None or 0 < share <= 1, "in (0, 1], or None")
        if self.params is not None and self.flops is not None:
            raise ValueError("params: flops is set too; give one of them.")


def derive(teacher: Model, *, width: float = 1.0, depth: float = 1.0) -> Model:
    """The teacher with `width` of its channels and `depth` of each stage's blocks.

    Both are shares in (0, 1]. At least one channel and one block a stage remain; every other field
    is the teacher's. ValueError for any other share.
    """
    for name, value in (("width", width), ("depth", depth)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}: {value!r} cannot work; give the share to keep, in (0, 1].")
    return teacher.scaled(width, depth)


def derive_within(
    teacher: Model, cost: Callable[[Model], float], share: float, *, depth: float = 1.0
) -> Model:
    """The widest network that costs at most `share` of what its teacher costs.

    `cost` grows with the width (parameters, FLOPs, milliseconds); the width is found by bisection.
    ValueError if even a single channel a layer costs more.
    """
    if not 0 < share <= 1:
        raise ValueError(f"{share!r} cannot work; give the share to keep, in (0, 1].")
    cost = functools.cache(cost)  # neighbouring widths are often the same network
    budget = share * cost(teacher)
    narrow, wide = 0.0, 1.0
    best = derive(teacher, depth=depth)
    if cost(best) <= budget:
        return best
    best = derive(teacher, width=2.0**-STEPS, depth=depth)
    least = cost(best)
    if least > budget:
        raise ValueError(
            f"even one channel a layer costs {least / cost(teacher):.2%} of the teacher, more than "
            f"{share:.2%}; allow more, or lower the depth."
        )
    for _ in range(STEPS):
        width = (narrow + wide) / 2
        candidate = derive(teacher, width=width, depth=depth)
        if cost(candidate) <= budget:
            narrow, best = width, candidate
        else:
            wide = width
    return best
