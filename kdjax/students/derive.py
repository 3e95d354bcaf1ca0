"""A smaller network of the teacher's family: from one configuration to another.

Must not know weights, nor any one family: every network says itself how it shrinks.
"""

import functools
from collections.abc import Callable

from kdjax.models import Model

STEPS = 14
"""Halvings of the interval that the width lies in: finer than any network's channels."""


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
