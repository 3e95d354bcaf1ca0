"""Channel-wise distillation (Shu et al., 2021, arXiv:2011.13256)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.stages import StageLoss, pool_to_common
from kdjax.types import Batch, Outputs


class CWD(StageLoss):
    """`T² mean_c KL(p_t[c] || p_s[c])`: where each channel is active.

    `p[c] = softmax(F[c] / T)` is over the pixels of channel `c`. Where the student has another
    number of channels than the teacher, a 1x1 convolution brings them there (in the authors' code
    with batch norm and ReLU behind it); the larger of two sizes is average-pooled to the smaller.
    Usual weight: 3 at T = 4 for logits of segmentation (the authors' README), 5 at T = 1 for each
    map of a detector (their repository for detection).
    """

    temperature: float = 4.0
    """Divides both maps; positive."""

    def check(self) -> None:
        """The temperature is positive."""
        require("temperature", self.temperature, self.temperature > 0, "positive")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        f_s, f_t = pool_to_common(*self.maps(student, teacher))
        if f_s.shape[-1] != f_t.shape[-1]:
            f_s = nn.Conv(f_t.shape[-1], (1, 1), name="conv")(f_s)
        log_s, log_t = (self._log_attention(f) for f in (f_s, f_t))
        divergence = jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=1)
        return self.temperature**2 * divergence.mean(axis=-1)

    def _log_attention(self, features: Array) -> Array:
        examples, *_, channels = features.shape
        pixels = features.reshape(examples, -1, channels)
        return jax.nn.log_softmax(pixels / self.temperature, axis=1)
