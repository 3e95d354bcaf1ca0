"""The CIFAR residual networks, 6n+2 layers deep (He et al., 2016, arXiv:1512.03385)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, renaming, share
from kdjax.types import Outputs


class ResNet(VisionModel):
    """A stem and stages of basic blocks; each stage after the first halves the resolution.

    The benchmark form of the distillation literature: a 1x1 convolution with batch norm on the
    shortcut wherever a block changes shape.
    """

    blocks: tuple[int, ...] = (3, 3, 3)
    """Blocks of each stage; (n, n, n) makes a network of 6n+2 layers."""
    widths: tuple[int, ...] = (16, 16, 32, 64)
    """Channels of the stem and of each stage."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are taken after the ReLU."""
        x = self.conv(self.widths[0], 3, name="stem")(self.pixels(images))
        x = nn.relu(self.batch_norm(train, name="stem_bn")(x))
        features = {"stem": x}
        for i, (count, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), start=1):
            for j in range(count):
                stride = 2 if i > 1 and j == 0 else 1
                x = self._block(x, f"stage{i}_block{j}", width, stride, train)
            features[f"stage{i}"] = x
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        return Outputs(logits.astype(jnp.float32), features, embedding)

    def _block(self, x: Array, name: str, width: int, stride: int, train: bool) -> Array:
        y = self.conv(width, 3, stride, name=f"{name}_conv1")(x)
        y = nn.relu(self.batch_norm(train, name=f"{name}_bn1")(y))
        y = self.conv(width, 3, name=f"{name}_conv2")(y)
        y = self.batch_norm(train, name=f"{name}_bn2")(y)
        if stride != 1 or x.shape[-1] != width:
            x = self.conv(width, 1, stride, name=f"{name}_shortcut")(x)
            x = self.batch_norm(train, name=f"{name}_shortcut_bn")(x)
        return nn.relu(x + y)

    def torch_names(self) -> tuple[Naming, ...]:
        """RepDistiller's and torchvision's names; those of akamaster/pytorch_resnet_cifar10."""
        layers = (
            (r"^stem_bn$", "bn1"),
            (r"^stem$", "conv1"),
            (r"^stage(\d+)_block(\d+)_", r"layer\1.\2."),
            (r"shortcut_bn$", "downsample.1"),
            (r"shortcut$", "downsample.0"),
        )
        return (
            renaming(*layers, ("^classifier$", "fc")),
            renaming(*layers, ("^classifier$", "linear")),
        )

    def scaled(self, width: float, depth: float) -> "ResNet":
        """The stem and all stages narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(share(count, depth) for count in self.blocks),
            widths=tuple(share(channels, width) for channels in self.widths),
        )
