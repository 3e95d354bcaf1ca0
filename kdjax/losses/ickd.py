"""Inter-channel correlation (Liu et al., 2021, arXiv:2202.03680)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import unit
from kdjax.losses.conv_norm import ConvNorm
from kdjax.losses.stages import StageLoss
from kdjax.types import Batch, Outputs


class ICKD(StageLoss):
    """Which channels are alike: `||R_s - R_t||² / C` of one stage.

    `R` is the matrix of the products `F[c]·F[c']` over the pixels, each of its `C` rows divided by
    its length, so maps may differ in size. A 1x1 convolution and batch norm give the student's
    map as many channels as the teacher's has, which is taken as it is. Usual weight: 2.5. (The
    authors' code for ImageNet divides by the size of the batch once more.)
    """

    sync_batch_norm: bool = True
    """Normalise the student's channels over the global batch."""

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Dimensionless, per example."""
        f_s, f_t = self.maps(student, teacher)
        x = ConvNorm(f_t.shape[-1], sync=self.sync_batch_norm, name="adapter")(f_s)
        gap = jnp.square(correlation(x) - correlation(f_t))
        return gap.sum(axis=-1).mean(axis=-1)


def correlation(features: Float[Array, "b h w c"]) -> Float[Array, "b c c"]:
    """Products of channels, in rows of length one."""
    examples, *_, channels = features.shape
    # The scale of a map cancels in the rows; taken out first, no product leaves float32.
    pixels = unit(features.reshape(examples, -1)).reshape(examples, -1, channels)
    return unit(jnp.einsum("bpc,bpd->bcd", pixels, pixels, precision="highest"))
