"""Distillation of foundation models without labels (Zhang et al., ICLR 2025, arXiv:2407.10366)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import require_teacher
from kdjax.losses.stages import StageLoss, pool_to_common
from kdjax.types import Batch, Outputs


class Proteus(StageLoss):
    """Proteus: the teacher's embedding and patches, regressed from the student's.

    `token mean((H(e_s) - e_t)²) + feature mean(([H(e_s), G(F_s)] - [e_t, F_t])²)`. The second mean
    is over the embedding and all pixels of one stage together; for a vision transformer, over the
    class token and the patches. H and G are each a LayerNorm and a linear layer to the teacher's
    width.

    The authors' third objective, `patch`, is the same of a second forward pass in which some
    patches are hidden from the student; a loss sees one pass, and it is left out. Their patches are
    behind the final LayerNorm, a stage is before it. For CLIP they use the token alone
    (`feature=0`). Maps of different sizes: the larger is average-pooled.

    Usual weight: 1, alone: no label is read.
    """

    token: float = 1.0
    """Weight of the embedding's gap."""
    feature: float = 1.0
    """Weight of the gap of embedding and map together."""

    def check(self) -> None:
        """Weights are not negative."""
        require("token", self.token, self.token >= 0, ">= 0")
        require("feature", self.feature, self.feature >= 0, ">= 0")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        teacher = require_teacher(self, teacher)
        f_s, f_t = pool_to_common(*self.maps(student, teacher))
        e_s, e_t = (each.embedding.astype("float32") for each in (student, teacher))
        of_token = jnp.square(_head(e_s, e_t, "token") - e_t)
        of_map = jnp.square(_head(f_s, f_t, "feature") - f_t).reshape(len(f_s), -1)
        together = jnp.concatenate([of_token, of_map], axis=-1)
        return self.token * of_token.mean(axis=-1) + self.feature * together.mean(axis=-1)


def _head(x: Array, like: Array, name: str) -> Array:
    # E x² - (E x)² loses its digits where a vector is nearly constant.
    norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=f"{name}_norm")
    return nn.Dense(like.shape[-1], name=f"{name}_linear")(norm(x))
