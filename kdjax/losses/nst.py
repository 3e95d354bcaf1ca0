"""Neuron selectivity transfer (Huang and Wang, 2017, arXiv:1707.01219)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import require_teacher, unit
from kdjax.losses.stages import StagesLoss, maps, pool_to_common
from kdjax.types import Batch, Outputs


class NST(StagesLoss):
    """Channels shall look at the same regions, whichever channel looks at which.

    Per stage, the squared maximum mean discrepancy between the student's channels `s` and the
    teacher's channels `t`, each a vector over the pixels of length one:

        mean_{s,s'} (s·s')² + mean_{t,t'} (t·t')² - 2 mean_{s,t} (s·t)²

    Summed over stages. Maps of different sizes: the larger is average-pooled to the smaller. The
    authors' code leaves out the term of the teacher alone, which has no gradient. Usual weight:
    50.
    """

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Dimensionless, per example."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(student.logits.shape[0])
        for tap in self.taps(student, teacher):
            f_s, f_t = pool_to_common(*maps(student, teacher, tap))
            total += discrepancy(selectivity(f_s), selectivity(f_t))
        return total


def selectivity(features: Float[Array, "b h w c"]) -> Float[Array, "b pixels c"]:
    """Channels of length one over the pixels, divided by the root of how many they are."""
    examples, *_, channels = features.shape
    return unit(features.reshape(examples, -1, channels), axis=1) / channels**0.5


def discrepancy(s: Float[Array, "b p c"], t: Float[Array, "b p d"]) -> Float[Array, " b"]:
    """`||s sᵀ - t tᵀ||²`, from products over the pixels or over the channels, what is cheaper.

    `||s sᵀ||² = ||sᵀ s||²`, the sum of `(s·s')²`.
    """
    pixels, channels = s.shape[1], s.shape[2] + t.shape[2]
    if pixels <= channels:
        gap = _gram("bpc,bqc->bpq", s, s) - _gram("bpc,bqc->bpq", t, t)
        return jnp.square(gap).sum(axis=(1, 2))
    ours, theirs, both = (
        jnp.square(_gram("bpc,bpd->bcd", x, y)).sum(axis=(1, 2))
        for x, y in ((s, s), (t, t), (s, t))
    )
    return ours + theirs - 2 * both


def _gram(axes: str, a: Array, b: Array) -> Array:
    # Nearly equal matrices are subtracted, so every bit of the products counts.
    return jnp.einsum(axes, a, b, precision="highest")
