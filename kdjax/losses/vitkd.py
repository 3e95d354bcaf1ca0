"""Feature distillation of vision transformers (Yang et al., 2022, arXiv:2209.02432)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kdjax.checks import require
from kdjax.losses.base import require_teacher
from kdjax.losses.stages import StagesLoss, maps, pool_to_common
from kdjax.types import Batch, Outputs


class ViTKD(StagesLoss):
    """Mimic the teacher's shallow layers, generate its deep one from a part of the student's.

    `alpha Σ_i Σ (A_i(F_s,i) - F_t,i)² + beta / masked Σ M (G(mix(A(F_s))) - F_t)²`, over patches
    and channels. The last of `stages` is generated, and those before it are mimicked. Each A is a
    linear layer to the teacher's width, and nothing where that is the student's. M is 1 at a new
    random choice of patches in every step, as many for each example; there a learned token takes
    the place of the student's patch (mix), so that G, two 3x3 convolutions with a ReLU between
    them, has only the other patches to go by.

    The authors mimic the patches after each of the first two blocks and generate those after the
    last: with `blocks=(1, 1, 9, 1)` in both networks, which are DeiT's twelve, that is
    `stages=("stage1", "stage2", "stage4")`. Their last map is behind the final LayerNorm, a stage
    is before it. Class tokens take no part. Maps of different sizes: the larger is average-pooled.

    Usual weight: 1, beside the labels (and NKD, in the authors' best results), on ImageNet.
    """

    alpha: float = 3e-5
    """Weight of what is mimicked."""
    beta: float = 3e-6
    """Weight of what is generated."""
    masked: float = 0.5
    """Share of the patches that are masked, above 0 and at most 1."""

    def check(self) -> None:
        """Weights are not negative; there is something to generate."""
        require("alpha", self.alpha, self.alpha >= 0, ">= 0")
        require("beta", self.beta, self.beta >= 0, ">= 0")
        require("masked", self.masked, 0 < self.masked <= 1, "above 0 and at most 1")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        teacher = require_teacher(self, teacher)
        pairs = [
            pool_to_common(*maps(student, teacher, tap)) for tap in self.taps(student, teacher)
        ]
        aligned = [_align(f_s, f_t, f"align{i}") for i, (f_s, f_t) in enumerate(pairs)]
        gaps = [a - f_t for a, (_, f_t) in zip(aligned[:-1], pairs[:-1], strict=True)]
        mimicked = sum((_squares(gap) for gap in gaps), jnp.zeros(len(batch.index)))
        generated = self._generated(aligned[-1], pairs[-1][1], batch)
        return self.alpha * mimicked + self.beta / self.masked * generated

    def _generated(self, x: Array, f_t: Array, batch: Batch) -> Float[Array, " b"]:
        width = x.shape[-1]
        mask = self._mask(batch, x.shape[1] * x.shape[2]).reshape(*x.shape[:3], 1)
        x = jnp.where(mask, self.param("mask_token", nn.initializers.zeros, (width,)), x)
        x = nn.relu(nn.Conv(width, (3, 3), padding=1, name="generator_conv1")(x))
        x = nn.Conv(width, (3, 3), padding=1, name="generator_conv2")(x)
        return _squares(mask * (x - f_t))

    def _mask(self, batch: Batch, patches: int) -> Bool[Array, "b patches"]:
        """True at the masked patches: those of the largest random numbers."""
        seen = int(patches * (1 - self.masked))
        ranks = jnp.argsort(jnp.argsort(self._noise(batch, patches), axis=-1), axis=-1)
        return ranks >= seen

    def _noise(self, batch: Batch, patches: int) -> Float[Array, "b patches"]:
        draw = jax.vmap(lambda key: jax.random.uniform(key, (patches,)))
        return draw(self.example_keys(batch))


def _align(f_s: Array, f_t: Array, name: str) -> Array:
    return f_s if f_s.shape[-1] == f_t.shape[-1] else nn.Dense(f_t.shape[-1], name=name)(f_s)


def _squares(x: Array) -> Float[Array, " b"]:
    return jnp.square(x).sum(axis=(1, 2, 3))
