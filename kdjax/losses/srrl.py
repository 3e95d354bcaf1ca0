"""Softmax regression representation learning (Yang et al., ICLR 2021)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.losses.conv_norm import ConvNorm
from kdjax.models.stages import last_map
from kdjax.types import Batch, Outputs


class SRRL(DistillationLoss):
    """`alpha mean((r - e_t)²) + beta mean((W_t r + b_t - z_t)²)`, over channels and over classes.

    `r` is what a regressor makes of the student's last features: a 1x1 convolution to the width of
    the teacher's embedding `e_t`, batch norm, ReLU, and the mean over pixels. `W_t` and `b_t` are
    the teacher's last layer: its classifier shall say of `r` what it says of its own embedding.

    The last features are the map that the student's embedding is the mean of, as in the authors'
    code. Where layers lie between the last stage and the embedding, as in `SmallCNN` or MobileNets,
    they are the embedding itself, a map of one pixel, so that those layers are taught too.

    Usual weight: 1, beside the labels.
    """

    alpha: float = 1.0
    """Weight of the embeddings' gap."""
    beta: float = 1.0
    """Weight of the gap of what the teacher's classifier says."""
    relu: bool = True
    """The regressor ends in a ReLU; off for teachers whose embedding is negative in places."""
    sync_batch_norm: bool = True
    """Normalise the regressor over the global batch."""

    reads_classifier: ClassVar[bool] = True

    def check(self) -> None:
        """Weights are not negative."""
        require("alpha", self.alpha, self.alpha >= 0, ">= 0")
        require("beta", self.beta, self.beta >= 0, ">= 0")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation and squared logits, per example."""
        teacher = require_teacher(self, teacher)
        target = teacher.embedding.astype("float32")
        regressor = ConvNorm(target.shape[-1], sync=self.sync_batch_norm, name="regressor")
        x = regressor(last_map(student).astype("float32"))
        embedding = (nn.relu(x) if self.relu else x).mean(axis=(1, 2))
        answer = self.teacher_classifier(embedding, teacher)
        features = jnp.square(embedding - target).mean(axis=-1)
        logits = jnp.square(answer - teacher.logits).mean(axis=-1)
        return self.alpha * features + self.beta * logits
