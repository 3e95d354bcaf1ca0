"""A phase in steps: which terms it has, and what of a state it trains."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from kdjax.checks import within
from kdjax.experiment import Phase, Run
from kdjax.experiment.objective import Term, adapter_names, for_examples, joined, term_names
from kdjax.experiment.phases import BOTH, begins, layers_of, spans
from kdjax.experiment.updates import Share
from kdjax.models.batch_norm import resting
from kdjax.training.parts import merged, part, paths


@dataclass(frozen=True)
class Stretch:
    """A phase from step `first` up to `stop`."""

    phase: Phase
    first: int
    stop: int
    terms: tuple[Term, ...]
    """Its objective."""
    names: tuple[str, ...]
    """What the terms are called in logs."""
    adapters: tuple[str, ...]
    """Where they have their parameters in states."""
    places: tuple[int, ...]
    """Which of the run's terms they are."""

    rest: tuple[str, ...] = ()
    """Parameters of losses that none of its terms trains: they stay as they are."""

    @property
    def trains_all(self) -> bool:
        """Whether nothing stays as it is."""
        return set(self.phase.train) >= set(BOTH) and not self.phase.freeze and not self.rest

    def trains(self, path: str) -> bool:
        """Whether what has this path moves."""
        return self.phase.trains(path) and not any(begins(start, path) for start in self.rest)

    def moving(self, tree: Any) -> Any:
        """The part of parameters or statistics that is trained."""
        return tree if self.trains_all else part(tree, self.trains)

    def still(self, tree: Any) -> Any:
        """The part that stays as it is."""
        return {} if self.trains_all else part(tree, lambda path: not self.trains(path))

    def put(self, still: Any, moving: Any) -> Any:
        """Both together again."""
        return moving if self.trains_all else merged(still, moving)

    def resting(self, above: str) -> AbstractContextManager[None]:
        """Within it, batch norm below this path moves only where the phase trains it."""
        if self.trains_all:
            return nullcontext()
        return resting(lambda path: not self.trains(f"{above}/{path}"))

    def numbers(self, of_all: Array) -> Array:
        """Of one number for each of the run's terms, those of this phase."""
        return of_all if self._has_all(of_all) else of_all[jnp.asarray(self.places)]

    def with_numbers(self, of_all: Array, own: Array) -> Array:
        """The numbers of all terms, those of this phase being changed."""
        return own if self._has_all(of_all) else of_all.at[jnp.asarray(self.places)].set(own)

    def _has_all(self, of_all: Array) -> bool:
        return self.places == tuple(range(len(of_all)))

    def rates(self, params: Any) -> Share | None:
        """What the learning rate of each of these parameters is multiplied by; None: by nothing."""
        decay, groups = self.phase.layer_decay, self.phase.groups
        if decay == 1.0 and all(group.rate == 1.0 for group in groups):
            return None
        layers = layers_of(paths(params)) if decay != 1.0 else {}
        return lambda path: self.phase.factors(path).rate * decay ** layers.get(path, 0)


def stretches(
    run: Run, examples: int, per_class: Sequence[int], per_epoch: float, steps: int
) -> tuple[tuple[Term, ...], tuple[Stretch, ...]]:
    """The terms of a run, and its phases; ValueError unless they fill its steps."""
    with within("fit"):
        placed = spans(run.fit.phases, run.fit.epochs)
    objectives = []
    for i, (phase, _, _) in enumerate(placed):
        with within("losses" if phase.losses is None else f"fit.phases.{i}.losses"):
            chosen = run.losses if phase.losses is None else phase.losses
            objectives.append(for_examples(chosen, examples, per_class))
    every, places = joined(objectives)
    names, adapters = term_names(every), adapter_names(every)
    borders = [round(span.begin * per_epoch) for span in placed] + [steps]
    found = []
    for i, (first, stop) in enumerate(pairwise(borders)):
        if first >= stop:
            raise ValueError(f"fit.phases.{i}.epochs: so few are no step; make it longer.")
        mine = tuple(places[i])
        own_names, own_adapters = (tuple(of[place] for place in mine) for of in (names, adapters))
        terms, phase = objectives[i], placed[i].phase
        rest = _rest(set(adapters), dict(zip(own_adapters, terms, strict=True)))
        found.append(Stretch(phase, first, stop, terms, own_names, own_adapters, mine, rest))
    return every, tuple(found)


def _rest(adapters: set[str], own: Mapping[str, Term]) -> tuple[str, ...]:
    """Of all adapters, those of other phases' terms, and what a term of this one only reads."""
    others = {f"adapters/{name}" for name in adapters - own.keys()}
    read = {f"adapters/{name}/{part}" for name, term in own.items() for part in term.loss.still}
    return tuple(sorted(others | read))
