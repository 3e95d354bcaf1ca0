"""A loss in use: its weight, and how the weight moves over the epochs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array

from kdjax.losses.attention_transfer import AttentionTransfer
from kdjax.losses.cross_entropy import CrossEntropy
from kdjax.losses.dkd import DKD
from kdjax.losses.fitnet import FitNet
from kdjax.losses.hard_target import HardTarget
from kdjax.losses.logit_mse import LogitMSE
from kdjax.losses.logit_standardization import LogitStandardization
from kdjax.losses.soft_target import SoftTarget
from kdjax.losses.wsld import WSLD

Loss = (
    CrossEntropy
    | SoftTarget
    | HardTarget
    | LogitMSE
    | LogitStandardization
    | DKD
    | WSLD
    | AttentionTransfer
    | FitNet
)
"""Every loss a config file can name."""


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A factor that moves from `start` to `stop` during `epochs`, and stays there.

    `Ramp()` is the 20-epoch linear warm-up of DKD and ReviewKD.
    """

    start: float = 0.0
    """Factor before `begin`."""
    stop: float = 1.0
    """Factor after `begin + epochs`."""
    begin: float = 0.0
    """Epoch at which it starts to move."""
    epochs: float = 20.0
    """How long it moves; positive."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it moves."""

    def __call__(self, epoch: Array) -> Array:
        """The factor at a (fractional) epoch."""
        done = jnp.clip((epoch - self.begin) / self.epochs, 0.0, 1.0)
        if self.shape == "cosine":
            done = 0.5 * (1 - jnp.cos(jnp.pi * done))
        return self.start + (self.stop - self.start) * done


@dataclass(frozen=True)
class Term:
    """One summand of the objective: `weight · schedule(epoch) · mean over the global batch`."""

    loss: Loss
    weight: float = 1.0
    """Factor of this term."""
    schedule: Ramp | None = None
    """How the weight moves over the epochs; None: not at all."""

    def weight_at(self, epoch: Array) -> Array:
        """The effective weight."""
        factor = self.schedule(epoch) if self.schedule else 1.0
        return jnp.asarray(self.weight * factor, jnp.float32)


def term_names(terms: Sequence[Term]) -> tuple[str, ...]:
    """One log name a term: the loss's in snake case, numbered where it occurs again."""
    names: list[str] = []
    for term in terms:
        base = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(term.loss).__name__).lower()
        count = sum(name == base or name.startswith(f"{base}_") for name in names)
        names.append(f"{base}_{count + 1}" if count else base)
    return tuple(names)
