"""MobileNet (Howard et al., 2017, arXiv:1704.04861)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.types import Outputs


class MobileNetV1(VisionModel):
    """Depthwise 3x3 and pointwise 1x1 convolutions in turn, without shortcuts.

    As in timm: ReLU6 instead of the paper's ReLU, and no dropout here.
    """

    blocks: tuple[int, ...] = (1, 2, 2, 6, 2)
    """Blocks of each stage, each one depthwise and one pointwise convolution."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    """Channels of the stem and of each stage."""
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 2)
    """Strides of the stem and of each stage's first block."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are taken after the activation."""
        x = self.conv(self.widths[0], 3, self.strides[0], name="stem")(self.pixels(images))
        x = nn.relu6(self.batch_norm(train, name="stem_bn")(x))
        features, before = {"stem": x}, {}
        rows = zip(self.blocks, self.widths[1:], self.strides[1:], strict=True)
        for i, (count, width, stride) in enumerate(rows, start=1):
            for j in range(count):
                y = self._block(x, f"stage{i}_block{j}", width, stride if j == 0 else 1, train)
                x = nn.relu6(y)
            features[f"stage{i}"], before[f"stage{i}"] = x, y
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        pooled = {f"stage{len(self.blocks)}": x}
        return Outputs(logits.astype(jnp.float32), features, embedding, before, pooled)

    def _block(self, x: Array, name: str, width: int, stride: int, train: bool) -> Array:
        """Without the last activation."""
        inner = x.shape[-1]
        depthwise = self.conv(inner, 3, stride, feature_group_count=inner, name=f"{name}_depthwise")
        x = nn.relu6(self.batch_norm(train, name=f"{name}_depthwise_bn")(depthwise(x)))
        x = self.conv(width, 1, name=f"{name}_pointwise")(x)
        return self.batch_norm(train, name=f"{name}_pointwise_bn")(x)

    def torch_names(self) -> tuple[Naming, ...]:
        """timm's."""
        stages = range(1, len(self.blocks) + 1)
        return (
            renaming(
                (r"^stem_bn$", "bn1"),
                (r"^stem$", "conv_stem"),
                *((rf"^stage{i}_block(\d+)_", rf"blocks.{i - 1}.\1.") for i in stages),
                (r"depthwise_bn$", "bn1"),
                (r"depthwise$", "conv_dw"),
                (r"pointwise_bn$", "bn2"),
                (r"pointwise$", "conv_pw"),
            ),
        )

    def scaled(self, width: float, depth: float) -> "MobileNetV1":
        """The stem and all stages narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
        )


MOBILENETS_V1 = {"mobilenet_v1": imagenet(MobileNetV1())}
