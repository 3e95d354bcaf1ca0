"""What is minimised: a weighted sum of losses, whose weights may move over the epochs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jaxtyping import Array

from kdjax.checks import within
from kdjax.losses import Loss, Ramp


@dataclass(frozen=True)
class Term:
    """One summand of the objective: `weight · schedule(epoch) · loss` of the global batch."""

    loss: Loss
    """What it measures."""
    weight: float = 1.0
    """Factor of this term."""
    schedule: Ramp | None = None
    """How the weight moves over the epochs; None: not at all."""

    def weight_at(self, epoch: Array) -> Array:
        """The effective weight."""
        factor = self.schedule(epoch) if self.schedule else 1.0
        return jnp.asarray(self.weight * factor, jnp.float32)


def for_examples(
    terms: Sequence[Term], examples: int, per_class: Sequence[int] = ()
) -> tuple[Term, ...]:
    """The terms for a training split of this size, with so many examples of each class."""
    found = []
    for i, term in enumerate(terms):
        with within(f"{i}.loss"):
            found.append(replace(term, loss=term.loss.for_examples(examples, per_class)))
    return tuple(found)


def joined(objectives: Sequence[Sequence[Term]]) -> tuple[tuple[Term, ...], list[list[int]]]:
    """The terms of several objectives, each loss once, and which of them each objective has.

    A loss that occurs twice in one objective is two.
    """
    every: dict[tuple[Loss, int], Term] = {}
    places = []
    for terms in objectives:
        losses = [term.loss for term in terms]
        keys = [(loss, losses[:i].count(loss)) for i, loss in enumerate(losses)]
        for key, term in zip(keys, terms, strict=True):
            every.setdefault(key, term)
        places.append([list(every).index(key) for key in keys])
    return tuple(every.values()), places


def term_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """One log name a term: its loss's."""
    return log_names([term.loss for term in terms])


def log_names(parts: Sequence[object]) -> tuple[str, ...]:
    """One name a part: that of its class in snake case, numbered where it occurs again."""
    names: list[str] = []
    for part in parts:
        base = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(part).__name__).lower()
        count = sum(name == base or name.startswith(f"{base}_") for name in names)
        names.append(f"{base}_{count + 1}" if count else base)
    return tuple(names)


def adapter_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """Where each term has its parameters: under its own name, unless it shares another's."""
    names = zip(terms, term_names(terms), strict=True)
    return tuple(term.loss.adapter or name for term, name in names)
