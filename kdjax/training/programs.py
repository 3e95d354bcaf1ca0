"""The compiled functions of a run, made while something else is done."""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import jax
from jaxtyping import Array

from kdjax.training.parallel import Devices, Spread
from kdjax.training.recipe import Recipe
from kdjax.training.state import TrainState
from kdjax.training.step import (
    make_balance,
    make_opening,
    make_probe,
    make_train_step,
    make_train_steps,
)


class PhasePrograms:
    """Those of one phase. Each is compiled when it is first called, unless it is there by then."""

    def __init__(self, recipe: Recipe, devices: Devices, together: int) -> None:
        self.recipe = recipe
        self._devices, self._together = devices, together
        self._balances = recipe.run.fit.balance is not None
        self._step = devices.spread(make_train_step(recipe), donate=True)
        self._steps = devices.spread(make_train_steps(recipe), donate=True)
        self.open: Spread[TrainState] = devices.spread(make_opening(recipe), donate=False)
        """The state in which the phase begins, from that in which the one before it ended."""
        self.probe: Spread[Array] = devices.spread(make_probe(recipe), donate=False)
        """The norm of each term's gradients."""
        self.balance: Spread[TrainState] = devices.spread(make_balance(recipe), donate=True)
        """The state with terms that are balanced."""

    def ahead(self, compiler: Executor, state: Any, fixed: Any, batch: Any) -> None:
        """Begin to make them for arrays of these shapes, those that are wanted first first."""
        one = self._devices.shapes(state, fixed, batch)
        if self._balances:
            self.balance.ahead(compiler, *one)
        if self._together > 1:
            self._steps.ahead(compiler, *one[:2], _repeated(one[2], self._together))
        self._step.ahead(compiler, *one)
        if len(self.recipe.terms) > 1 and self._devices.idle_host:
            self.probe.ahead(compiler, *one)

    def advance(self, steps: range) -> Spread[tuple[TrainState, Array]]:
        """From a state and the batches of these steps to the next state and the metrics."""
        return self._steps if len(steps) > 1 else self._step


class Programs:
    """Those of a run."""

    def __init__(self, recipe: Recipe, devices: Devices, together: int) -> None:
        """`together`: steps that are started at once."""
        self._devices = devices
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._phases = [
            PhasePrograms(recipe.at(stretch.first), devices, together)
            for stretch in recipe.stretches
        ]

    def of(self, step: int) -> PhasePrograms:
        """Those of the phase that makes this step."""
        return self._phases[self._phases[0].recipe.at(step).number]

    def ahead(self, step: int, state: Callable[[Recipe], Any], fixed: Any, batch: Any) -> None:
        """Begin to make those of this step's phase, while weights are drawn or read, and those of
        later ones where the host is idle. `state` has a recipe's shapes."""
        first, *later = self._phases[self._phases.index(self.of(step)) :]
        for phase in (first, *(later if self._devices.idle_host else ())):
            phase.ahead(self._compiler, state(phase.recipe), fixed, batch)

    def behind(self, others: Iterable[Callable[[Executor], None]]) -> None:
        """Have what else will be wanted compiled behind the first steps, where the host is idle."""
        for compile in others if self._devices.idle_host else ():
            compile(self._compiler)

    def close(self) -> None:
        """Leave what is not begun; what is under way cannot be stopped."""
        self._compiler.shutdown(wait=False, cancel_futures=True)


def _repeated(batch: Any, steps: int) -> Any:
    """Of a batch on each device, as many."""

    def more(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (x.shape[0], steps, *x.shape[1:])
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=x.sharding)

    return jax.tree.map(more, batch)
