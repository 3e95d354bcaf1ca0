"""What every network shares: its pixels, its precision, its batch normalisation."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.types import AXIS, Outputs

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class VisionModel(nn.Module):
    """A function from images to `Outputs`; its fields are its whole configuration.

    The model owns its normalisation, so a teacher and a student with different statistics can
    look at the same pixels.
    """

    num_classes: int = 10
    """Number of classes."""
    mean: tuple[float, ...] = (0.5,)
    """Channel means of the pixels in [0, 1] (one value serves all channels)."""
    std: tuple[float, ...] = (0.5,)
    """Channel standard deviations of the pixels in [0, 1]."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the computation; parameters, statistics and logits stay float32."""
    sync_batch_norm: bool = True
    """Normalise over the global batch, so that the number of devices changes nothing."""

    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """`images`: `[b, H, W, C]`, uint8 or float in [0, 1]. `train` uses batch statistics."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def channels(self) -> Mapping[str, tuple[str | None, str | None]]:
        """The channel groups each layer reads and writes: `{"conv1": ("image", "stage1")}`.

        Layers that write into one group (a residual stream) lose the same channels when a
        student is cut from this model. None marks an axis that is never cut.
        """
        raise TypeError(f"{type(self).__name__} does not declare its channels; it cannot be cut")

    def pixels(self, images: Array) -> Array:
        """Normalised images in the precision of the computation."""
        scaled = images / 255.0 if images.dtype == jnp.uint8 else images
        return ((scaled - jnp.asarray(self.mean)) / jnp.asarray(self.std)).astype(self.dtype)

    def batch_norm(self, train: bool, **fields: Any) -> nn.BatchNorm:
        """Momentum 0.9 and epsilon 1e-5: what PyTorch calls momentum 0.1."""
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=AXIS if self.sync_batch_norm and train else None,
            **fields,
        )

    def conv(self, features: int, kernel: int, stride: int = 1, **fields: Any) -> nn.Conv:
        """A bias-free convolution with PyTorch's symmetric padding and Kaiming fan-out weights."""
        return nn.Conv(
            features,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=kaiming_fan_out,
            **fields,
        )
