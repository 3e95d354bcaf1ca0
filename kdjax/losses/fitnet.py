"""FitNets: hints from the middle of the teacher (Romero et al., 2015, arXiv:1412.6550)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.stages import StageLoss
from kdjax.models.base import kaiming_fan_out
from kdjax.types import AXIS, Batch, Outputs


class FitNet(StageLoss):
    """`mean((regressor(F_s) - F_t)²)` over pixels and channels of one stage.

    The regressor is a convolution with bias, batch norm and ReLU, as in RepDistiller and
    mdistiller: 3x3 with stride 2 where the student's map is twice as large, transposed 4x4 where it
    is half as large, and otherwise, as in the paper, without padding and with the window that makes
    the sizes equal: 1x1 where they are equal already, larger where the student's map is.

    Usual weight: 100, beside the labels.
    """

    stage: str = "stage2"
    """Stage of the student; empty: its last."""
    sync_batch_norm: bool = True
    """Normalise the regressor over the global batch."""

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        f_s, f_t = self.maps(student, teacher)
        x = self._resize(f_s, f_t)
        axis = AXIS if self.sync_batch_norm else None
        x = nn.BatchNorm(use_running_average=False, momentum=0.9, axis_name=axis, name="bn")(x)
        return jnp.square(nn.relu(x) - f_t).mean(axis=(1, 2, 3))

    def _resize(self, f_s: Array, f_t: Array) -> Array:
        (h, w), (target_h, target_w), width = f_s.shape[1:3], f_t.shape[1:3], f_t.shape[-1]
        init = kaiming_fan_out
        if (h, w) == (2 * target_h, 2 * target_w):
            conv = nn.Conv(width, (3, 3), strides=2, padding=1, kernel_init=init, name="conv")
            return conv(f_s)
        if (2 * h, 2 * w) == (target_h, target_w):
            return nn.ConvTranspose(width, (4, 4), strides=(2, 2), kernel_init=init, name="conv")(
                f_s
            )
        if h >= target_h and w >= target_w:
            window = (1 + h - target_h, 1 + w - target_w)
            return nn.Conv(width, window, padding="VALID", kernel_init=init, name="conv")(f_s)
        raise ValueError(
            f"FitNet: cannot bring the student's {self.stage} of {h}x{w} to the teacher's "
            f"{target_h}x{target_w}; choose stages of equal, half or double resolution."
        )
