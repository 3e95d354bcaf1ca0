"""Correlation congruence (Peng et al., 2019, arXiv:1904.01802)."""

import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, unit
from kdjax.types import Batch, Outputs

GAMMA = 0.4
"""The paper's γ, `1 / (2 σ²)` of the kernel."""

LIKE_TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""How the authors' linear layers start."""


class CC(DistillationLoss):
    """Correlations between examples as the teacher has them.

    - `variant="code"`, what the authors gave to the benchmarks: the mean over consecutive examples
      of `sum_c |Δ_i| |Δ_{i+1}|`, with `Δ = W_s e_s + b_s - W_t e_t - b_t`. Both embeddings go
      through a linear layer that learns. A difference costs where the next example has it too, so
      the value depends on the order of the batch.
    - `variant="paper"`: `mean((K_s - K_t)²)` over all pairs of examples, with the Gaussian kernel
      `K = exp(-γ ||u_i - u_j||²)` of embeddings divided by their length, γ = 0.4, expanded to the
      second order: `exp(-2γ) (1 + 2γ c + (2γ c)² / 2)` of the cosine `c`. Nothing learns.

    Usual weight: 0.02, of the code's.
    """

    width: int = 128
    """Width of the two linear layers; the paper's form has none."""
    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""

    whole_batch: ClassVar[bool] = True

    def check(self) -> None:
        """The linear layers have a width."""
        require("width", self.width, self.width >= 1, "at least 1")

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Squared activation, or dimensionless in the paper's form, of the whole batch."""
        teacher = require_teacher(self, teacher)
        e_s, e_t = (out.embedding.astype("float32") for out in (student, teacher))
        if self.variant == "paper":
            return jnp.square(correlations(e_s) - correlations(e_t)).mean()
        ours = nn.Dense(self.width, kernel_init=LIKE_TORCH, name="embed_student")(e_s)
        theirs = nn.Dense(self.width, kernel_init=LIKE_TORCH, name="embed_teacher")(e_t)
        delta = jnp.abs(ours - theirs)
        return jnp.sum(delta[:-1] * delta[1:]) / max(len(delta) - 1, 1)


def correlations(embedding: Float[Array, "b d"]) -> Float[Array, "b b"]:
    """The Gaussian kernel of all pairs, to the second order in their cosine."""
    directions = unit(embedding)
    x = 2 * GAMMA * jnp.matmul(directions, directions.T, precision="highest")
    return math.exp(-2 * GAMMA) * (1 + x + jnp.square(x) / 2)
