"""What every network shares: its pixels, its precision, its batch normalisation."""

import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.batch_norm import BatchNorm
from kdjax.models.kernels import convolution
from kdjax.types import AXIS, Outputs, Variables

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

MOMENTUM = 0.9
"""Share of batch norm's running statistics that outlives one batch; PyTorch would say 0.1."""


Naming = Callable[[str], str]
"""From the name of a layer of ours, `stage1_block0_conv1`, to PyTorch's, `layer1.0.conv1`."""


def renaming(*pairs: tuple[str, str]) -> Naming:
    """Regular expressions and their replacements, applied one after the other."""

    def rename(layer: str) -> str:
        for pattern, replacement in pairs:
            layer = re.sub(pattern, replacement, layer)
        return layer

    return rename


class VisionModel(nn.Module):
    """A function from images to `Outputs`; its fields are its whole configuration.

    The model owns its normalisation, so a teacher and a student with different statistics can
    look at the same pixels.

    Layers of block j of stage i are named `stage{i}_block{j}_…`. All blocks of a stage but the
    first keep their input's shape, so that a student can do without them.
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

    stem_widths: ClassVar[int] = 1
    """How many more `widths` than stages there are."""

    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """`images`: `[b, H, W, C]`, uint8 or float in [0, 1]. `train` uses batch statistics."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def check(self) -> None:
        """ValueError for the first field that cannot work: `heads: 0 cannot work; …`."""

    def scaled(self, width: float, depth: float) -> "VisionModel":
        """The same family with these shares, in (0, 1], of the channels and of each stage's blocks.

        Sizes are rounded, but never to zero. All other fields stay. ValueError where a network does
        not define it.
        """
        raise ValueError(
            f"{type(self).__name__} does not say how it shrinks; define scaled(width, depth), "
            "or name the student's network in student.model."
        )

    def torch_names(self) -> tuple[Naming, ...]:
        """What published PyTorch files call the layers: one naming a dialect, the first for export.

        Empty where there is no counterpart.
        """
        return ()

    def pixels(self, images: Array) -> Array:
        """Normalised images in the precision of the computation."""
        scaled = images / 255.0 if images.dtype == jnp.uint8 else images
        return ((scaled - jnp.asarray(self.mean)) / jnp.asarray(self.std)).astype(self.dtype)

    def batch_norm(
        self, train: bool, *, momentum: float = MOMENTUM, epsilon: float = 1e-5, **fields: Any
    ) -> BatchNorm:
        """Batch norm over the examples of all devices, unless `sync_batch_norm` is off."""
        return BatchNorm(
            use_running_average=not train,
            momentum=momentum,
            epsilon=epsilon,
            dtype=self.dtype,
            axis_name=AXIS if self.sync_batch_norm and train else None,
            **fields,
        )

    def conv(
        self,
        features: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        use_bias: bool = False,
        kernel_init: nn.initializers.Initializer = kaiming_fan_out,
        **fields: Any,
    ) -> nn.Conv:
        """A convolution with PyTorch's symmetric padding, by default half the kernel."""
        return nn.Conv(
            features,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2 if padding is None else padding,
            use_bias=use_bias,
            dtype=self.dtype,
            kernel_init=kernel_init,
            conv_general_dilated=convolution,
            **fields,
        )


def infer(model: nn.Module, variables: Variables, images: Array) -> Outputs:
    """The forward pass in evaluation mode: it reads running statistics and changes nothing."""
    outputs: Any = model.apply(variables, images, train=False)
    return outputs


def scaled_size(size: int, kept: float, multiple: int = 1) -> int:
    """`kept · size`, rounded to a multiple of `multiple`, and at least one such."""
    return multiple * max(1, round(kept * size / multiple))


def evenly_spaced(count: int, kept: int) -> list[int]:
    """Which `kept` of a stage's `count` blocks remain where it is cut shorter.

    The first, which changes the shape, and then evenly spaced ones: `floor(j count / kept)`.
    """
    return [j * count // kept for j in range(kept)]


def adaptive_pool(
    x: Array, height: int, width: int, reduce: Callable[..., Array] = jnp.mean
) -> Array:
    """Average a `[b, H, W, C]` map over windows, as many as the result shall have pixels."""
    return _pool_axis(_pool_axis(x, 1, height, reduce), 2, width, reduce)


def _pool_axis(x: Array, axis: int, size: int, reduce: Callable[..., Array]) -> Array:
    """Window i covers `[floor(i n / size), ceil((i + 1) n / size))`, as in PyTorch."""
    n = x.shape[axis]
    if n == size:
        return x
    windows = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
    slices = [jax.lax.slice_in_dim(x, start, stop, axis=axis) for start, stop in windows]
    return jnp.concatenate([reduce(part, axis=axis, keepdims=True) for part in slices], axis=axis)


M = TypeVar("M", bound=VisionModel)


def imagenet(model: M) -> M:
    """With a thousand classes, and pixels normalised as torchvision's weights expect them."""
    return model.clone(num_classes=1000, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
