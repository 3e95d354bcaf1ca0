"""What is due when: the steps of a run as data, which the loop only carries out."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kdjax.training.recipe import Recipe


class Due(NamedTuple):
    """Steps, and what is to be done around them."""

    steps: range
    """Started together, all of one phase."""
    opens: bool
    """Begin the phase with them."""
    balance: bool
    """Balance the terms before them."""
    validate: bool
    """Validate the network after them, and keep it."""


def cadence(recipe: Recipe, first: int, together: int) -> Iterator[Due]:
    """Everything from step `first` to the end, `together` steps at a time where nothing is due."""
    every, validations = recipe.run.fit.balance, validation_steps(recipe)
    borders = {stretch.first for stretch in recipe.stretches} - {0}
    ends = validations | borders

    def balances(step: int) -> bool:
        return every is not None and (step % every == 0 or step in borders)

    def interrupts(step: int) -> bool:
        return step + 1 in ends or balances(step)

    for steps in groups(first, recipe.steps, together, interrupts):
        yield Due(steps, steps.start in borders, balances(steps.start), steps.stop in validations)


def validation_steps(recipe: Recipe) -> frozenset[int]:
    """After how many steps the network is validated; the last is among them."""
    every = recipe.run.fit.eval_every * recipe.steps_per_epoch
    count = math.floor(recipe.steps / every)
    return frozenset(max(1, round(i * every)) for i in range(1, count + 1)) | {recipe.steps}


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
