"""The compiled functions of a run."""

from jaxtyping import Array

from kdjax.training.parallel import Devices, Spread
from kdjax.training.recipe import Recipe
from kdjax.training.state import TrainState
from kdjax.training.step import make_balance, make_probe, make_train_step, make_train_steps


class Programs:
    """Each is compiled when it is first called."""

    def __init__(self, recipe: Recipe, devices: Devices) -> None:
        self._step = devices.spread(make_train_step(recipe), donate=True)
        self._steps = devices.spread(make_train_steps(recipe), donate=True)
        self.probe: Spread[Array] = devices.spread(make_probe(recipe), donate=False)
        """The norm of each term's gradients."""
        self.balance: Spread[TrainState] = devices.spread(make_balance(recipe), donate=True)
        """The state with terms that are balanced."""

    def advance(self, steps: range) -> Spread[tuple[TrainState, Array]]:
        """From a state and the batches of these steps to the next state and the metrics."""
        return self._steps if len(steps) > 1 else self._step
