"""Factor transfer (Kim et al., 2018, arXiv:1802.04977)."""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.attention_transfer import attention
from kdjax.losses.base import DistillationLoss, unit
from kdjax.losses.stages import StageLoss, pool_to_common
from kdjax.types import AXIS, Batch, Outputs


class Paraphraser(StageLoss):
    """What comes before factor transfer: an autoencoder of the teacher's map.

    `mean((decoder(paraphraser(F_t)) - F_t)²)`. The paraphraser has `rate` as many channels as the
    map; `FT` reads it, so this is the objective of a phase before that. Paraphraser and decoder
    are three 3x3 convolutions each with leaky ReLU of slope 0.1. Usual weight: 1, for 30 epochs.
    (The authors take absolute differences; the benchmarks take squares.)
    """

    adapter: ClassVar[str | None] = "ft"

    rate: float = 0.5
    """Channels of a factor, as a share of the teacher's."""

    def check(self) -> None:
        """A factor has channels."""
        require("rate", self.rate, self.rate > 0, "positive")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        _, f_t = self.maps(student, teacher)
        channels, factors = f_t.shape[-1], factor_channels(f_t, self.rate)
        paraphrase = Stack((channels, factors, factors), name="paraphraser")(f_t)
        decoded = Stack((factors, channels, channels), name="decoder")(paraphrase)
        return jnp.square(decoded - f_t).mean(axis=(1, 2, 3))


class FT(StageLoss):
    """`mean |n(translator(F_s)) - n(paraphraser(F_t))|^p2`: the teacher's map in other words.

    The paraphraser is that of `Paraphraser`, trained in a phase before, and stands still here. The
    translator has three 3x3 convolutions, each with batch norm and leaky ReLU of slope 0.1. Factors
    of different sizes: the larger is average-pooled to the smaller. Two forms of `n`:

    - `variant="code"`: attention, `normalise(vec(mean_C |F|^p1))`, what the benchmarks use;
    - `variant="paper"`: the factor itself, `normalise(vec(F))`.

    Usual weight: 200. (The authors have no batch norm in the translator; the benchmarks have.)
    """

    prepared_by: ClassVar[type[DistillationLoss] | None] = Paraphraser
    still: ClassVar[tuple[str, ...]] = ("paraphraser", "decoder")

    rate: float = 0.5
    """Channels of a factor, as a share of the teacher's: that of the paraphraser."""
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
        """Dimensionless, per example."""
        f_s, f_t = self.maps(student, teacher)
        factors = factor_channels(f_t, self.rate)
        paraphrase = Stack((f_t.shape[-1], factors, factors), name="paraphraser")(f_t)
        axis = AXIS if self.sync_batch_norm else None
        widths = (f_s.shape[-1], factors, factors)
        translation = Stack(widths, True, axis, name="translator")(f_s)
        pair = pool_to_common(translation, jax.lax.stop_gradient(paraphrase))
        n_s, n_t = map(self._normalised, pair)
        return (jnp.abs(n_s - n_t) ** self.p2).mean(axis=-1)

    def _normalised(self, factor: Array) -> Array:
        if self.variant == "code":
            return attention(factor, self.p1)
        return unit(factor.reshape(factor.shape[0], -1))


def factor_channels(feature: Array, rate: float) -> int:
    """How many channels the factor of a map has."""
    return max(1, int(rate * feature.shape[-1]))


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
