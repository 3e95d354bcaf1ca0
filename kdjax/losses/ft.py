"""Factor transfer (Kim et al., 2018, arXiv:1802.04977)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.attention_transfer import attention
from kdjax.losses.base import require_teacher, unit
from kdjax.losses.stages import StageLoss, maps, pool_to_common
from kdjax.types import AXIS, Batch, Outputs


class FT(StageLoss):
    """`mean |n(translator(F_s)) - n(paraphraser(F_t))|^p2`: the teacher's map in other words.

    The paraphraser is the encoder of an autoencoder of the teacher's map, with `rate` as many
    channels. Until an example's epoch is `paraphrase_epochs` its value is the error of the
    autoencoder, `mean((decoder(paraphraser(F_t)) - F_t)²)`; from then on the paraphraser stands
    still. The labels shall wait as long: the schedule of their term is `Ramp(begin=30, epochs=0)`.

    Translator, paraphraser and decoder are three 3x3 convolutions each with leaky ReLU of slope
    0.1, the translator's with batch norm. Factors of different sizes: the larger is average-pooled
    to the smaller. Two forms of `n`:

    - `variant="code"`: attention, `normalise(vec(mean_C |F|^p1))`, what the benchmarks use;
    - `variant="paper"`: the factor itself, `normalise(vec(F))`.

    Usual weight: 200, and 1 for the autoencoder: weight 200 and schedule
    `Ramp(start=0.005, stop=1, begin=30, epochs=0)`. (The authors train the autoencoder by absolute
    differences and have no batch norm in the translator.)
    """

    rate: float = 0.5
    """Channels of a factor, as a share of the teacher's."""
    paraphrase_epochs: float = 30.0
    """How long the paraphraser is trained, and it alone."""
    p1: float = 2.0
    """Power of the activations of a factor; of `variant="code"` alone."""
    p2: float = 1.0
    """Power of the differences."""
    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""
    sync_batch_norm: bool = True
    """Normalise the translator over the global batch."""

    def check(self) -> None:
        """Below one the slope of a power is infinite at zero."""
        require("rate", self.rate, self.rate > 0, "positive")
        require("p1", self.p1, self.p1 >= 1, "at least 1")
        require("p2", self.p2, self.p2 >= 1, "at least 1")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation while the paraphraser is trained, then dimensionless; per example."""
        teacher = require_teacher(self, teacher)
        (tap,) = self.taps(student, teacher)
        f_s, f_t = maps(student, teacher, tap)
        channels = f_t.shape[-1]
        factors = max(1, int(self.rate * channels))
        paraphrase = Stack((channels, factors, factors), name="paraphraser")(f_t)
        decoded = Stack((factors, channels, channels), name="decoder")(paraphrase)
        axis = AXIS if self.sync_batch_norm else None
        widths = (f_s.shape[-1], factors, factors)
        translation = Stack(widths, True, axis, name="translator")(f_s)
        return jnp.where(
            batch.epoch < self.paraphrase_epochs,
            jnp.square(decoded - f_t).mean(axis=(1, 2, 3)),
            self._difference(translation, jax.lax.stop_gradient(paraphrase)),
        )

    def _difference(self, ours: Array, theirs: Array) -> Array:
        n_s, n_t = (self._normalise(f) for f in pool_to_common(ours, theirs))
        return (jnp.abs(n_s - n_t) ** self.p2).mean(axis=-1)

    def _normalise(self, factor: Array) -> Array:
        if self.variant == "code":
            return attention(factor, self.p1)
        return unit(factor.reshape(factor.shape[0], -1))


class Stack(nn.Module):
    """3x3 convolutions, each with leaky ReLU, and with batch norm before it if wished."""

    widths: tuple[int, ...]
    batch_norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """A map of the same size."""
        for i, width in enumerate(self.widths):
            x = nn.Conv(width, (3, 3), padding=1, name=f"conv{i}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=False,
                    momentum=0.9,
                    axis_name=self.axis_name,
                    name=f"bn{i}",
                )(x)
            x = nn.leaky_relu(x, 0.1)
        return x
