"""MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.models.dropout import dropout
from kdjax.models.inverted_residual import Activation, Block
from kdjax.types import Outputs


class MobileNetV2(VisionModel):
    """Stages of inverted residual blocks, whose narrow ends carry the shortcuts.

    The defaults are torchvision's. `mobilenet_v2_half` is the form of the distillation literature
    (RepDistiller's), for small images: half the channels up to the last convolution, ReLU instead
    of ReLU6, an expansion in the first block too, and a second stage that keeps the resolution.
    """

    blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    """Blocks of each stage."""
    widths: tuple[int, ...] = (32, 16, 24, 32, 64, 96, 160, 320)
    """Channels of the stem and of each stage."""
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 1, 2, 1)
    """Strides of the stem and of each stage's first block."""
    expansions: tuple[int, ...] = (0, 6, 6, 6, 6, 6, 6)
    """Channels inside the blocks of each stage, over those they read; 0 leaves the expanding
    convolution out."""
    head: int = 1280
    """Channels of the last convolution, which the classifier reads."""
    activation: Literal["relu6", "relu"] = "relu6"
    """Of all layers that have one."""
    dropout: float = 0.0
    """Share of the embedding that the classifier does not see in training; torchvision has 0.2."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Feature `stem` is taken after the activation; `stage1`, … have none."""
        activation = self._activation
        x = self.conv(self.widths[0], 3, self.strides[0], name="stem")(self.pixels(images))
        x = activation(self.batch_norm(train, name="stem_bn")(x))
        features = {"stem": x}
        for i, stage in enumerate(self._stages(), start=1):
            for j, block in enumerate(stage):
                x = block(self, x, f"stage{i}_block{j}", train)
            features[f"stage{i}"] = x
        x = self.conv(self.head, 1, name="head")(x)
        x = activation(self.batch_norm(train, name="head_bn")(x))
        embedding = x.mean(axis=(1, 2))
        x = dropout(embedding, self.dropout, train, "classifier_dropout")
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x)
        return Outputs(logits.astype(jnp.float32), features, embedding)

    @property
    def _activation(self) -> Activation:
        return nn.relu6 if self.activation == "relu6" else nn.relu

    def _stages(self) -> list[list[Block]]:
        stages = []
        source = self.widths[0]
        rows = zip(self.blocks, self.widths[1:], self.strides[1:], self.expansions, strict=True)
        for count, width, stride, expansion in rows:
            first = Block(width, expansion * source, stride, self._activation)
            other = Block(width, expansion * width, 1, self._activation)
            stages.append([first] + [other] * (count - 1))
            source = width
        return stages

    def torch_names(self) -> tuple[Naming, ...]:
        """torchvision's names, and RepDistiller's, where every block expands."""
        torchvision = self._torchvision_names().__getitem__
        return (self._repdistiller_names(), torchvision) if all(self.expansions) else (torchvision,)

    def _torchvision_names(self) -> dict[str, str]:
        names = {"stem": "features.0.0", "stem_bn": "features.0.1", "classifier": "classifier.1"}
        n = 1  # Blocks are numbered across stages.
        for i, stage in enumerate(self._stages(), start=1):
            for j, block in enumerate(stage):
                ours, theirs = f"stage{i}_block{j}", f"features.{n}.conv"
                names |= block.torchvision_names(ours, theirs)
                # Here the projection and its batch norm are not one part but two.
                last = len(block.parts) - 1
                names[f"{ours}_project"] = f"{theirs}.{last}"
                names[f"{ours}_project_bn"] = f"{theirs}.{last + 1}"
                n += 1
        return names | {"head": f"features.{n}.0", "head_bn": f"features.{n}.1"}

    def _repdistiller_names(self) -> Naming:
        stages = range(1, len(self.blocks) + 1)
        return renaming(
            (r"^stem_bn$", "conv1.1"),
            (r"^stem$", "conv1.0"),
            (r"^head_bn$", "conv2.1"),
            (r"^head$", "conv2.0"),
            (r"^classifier$", "classifier.0"),
            *((rf"^stage{i}_block(\d+)_", rf"blocks.{i - 1}.\1.conv.") for i in stages),
            (r"expand_bn$", "1"),
            (r"expand$", "0"),
            (r"depthwise_bn$", "4"),
            (r"depthwise$", "3"),
            (r"project_bn$", "7"),
            (r"project$", "6"),
        )

    def scaled(self, width: float, depth: float) -> "MobileNetV2":
        """The stem, all stages and the head narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
            head=scaled_size(self.head, width),
        )


MOBILENETS_V2 = {
    "mobilenet_v2": imagenet(MobileNetV2()),
    "mobilenet_v2_half": MobileNetV2(
        widths=(16, 8, 12, 16, 32, 48, 80, 160),
        strides=(2, 1, 1, 2, 2, 1, 2, 1),
        expansions=(1, 6, 6, 6, 6, 6, 6),
        activation="relu",
    ),
}
