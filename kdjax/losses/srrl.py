"""Softmax regression representation learning (Yang et al., ICLR 2021)."""

from typing import ClassVar, Literal

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
    the teacher's embedding `e_t`, batch norm and ReLU. `W_t` and `b_t` are the teacher's last
    layer: its classifier shall say of `r` what it says of its own embedding.

    - `variant="code"`: the last features are the student's embedding, as in the code of SimKD's
      authors, whose numbers are the published ones on CIFAR-100;
    - `variant="authors"`: they are the map that the embedding is the mean of, and `r` is the mean
      over the pixels, as in the code of SRRL's authors. Where layers lie between the last stage and
      the embedding, as in `SmallCNN` or MobileNets, both variants are the same.

    Usual weight: 1, beside the labels.
    """

    alpha: float = 1.0
    """Weight of the embeddings' gap."""
    beta: float = 1.0
    """Weight of the gap of what the teacher's classifier says."""
    relu: bool = True
    """The regressor ends in a ReLU; off for teachers whose embedding is negative in places."""
    variant: Literal["code", "authors"] = "code"
    """Whether embeddings or maps are regressed."""
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
        features = student.embedding[:, None, None] if self.variant == "code" else last_map(student)
        x = regressor(features.astype("float32"))
        embedding = (nn.relu(x) if self.relu else x).mean(axis=(1, 2))
        answer = self.teacher_classifier(embedding, teacher)
        of_embeddings = jnp.square(embedding - target).mean(axis=-1)
        of_logits = jnp.square(answer - teacher.logits).mean(axis=-1)
        return self.alpha * of_embeddings + self.beta * of_logits
