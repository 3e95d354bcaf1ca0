"""A number that moves over the epochs."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array

from kdjax.checks import require


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that moves from `start` to `stop` during `epochs`, and stays there.

    `Ramp()` is the 20-epoch linear warm-up of DKD and ReviewKD. It counts the epochs of the whole
    fit, whatever its phases are.
    """

    start: float = 0.0
    """Its value before `begin`."""
    stop: float = 1.0
    """Its value after `begin + epochs`."""
    begin: float = 0.0
    """Epoch at which it starts to move."""
    epochs: float = 20.0
    """How long it moves; 0: it jumps."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it moves."""

    def __call__(self, epoch: Array) -> Array:
        """The value at a (fractional) epoch."""
        since = epoch - self.begin
        if self.epochs:
            done = jnp.clip(since / self.epochs, 0.0, 1.0)
        else:
            done = jnp.where(since >= 0, 1.0, 0.0)
        if self.shape == "cosine":
            done = 0.5 * (1 - jnp.cos(jnp.pi * done))
        return self.start + (self.stop - self.start) * done

    def check(self) -> None:
        """ValueError unless it can be followed."""
        require("epochs", self.epochs, self.epochs >= 0, ">= 0")


def at(value: float | Ramp, epoch: Array) -> Array | float:
    """What a field that may be a ramp is in each example's epoch: `[b, 1]`, or the number itself.

    `epoch` counts how often the example was seen, so the value moves once an epoch.
    """
    return value(epoch.astype(jnp.float32))[:, None] if isinstance(value, Ramp) else value
