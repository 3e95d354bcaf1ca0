"""What is minimised: a weighted sum of losses, whose weights may move over the epochs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jaxtyping import Array

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


def for_examples(terms: Sequence[Term], examples: int) -> tuple[Term, ...]:
    """The terms for a training split of this size."""
    return tuple(replace(term, loss=term.loss.for_examples(examples)) for term in terms)


def term_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """One log name a term: the loss's in snake case, numbered where it occurs again."""
    names: list[str] = []
    for term in terms:
        base = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(term.loss).__name__).lower()
        count = sum(name == base or name.startswith(f"{base}_") for name in names)
        names.append(f"{base}_{count + 1}" if count else base)
    return tuple(names)
