"""Residual networks (He et al., 2016, arXiv:1512.03385) for CIFAR and for ImageNet."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.types import Outputs


class ResNet(VisionModel):
    """A stem and stages of residual blocks; each stage after the first halves the resolution.

    The defaults are the benchmark form of the distillation literature. With `block="bottleneck"`
    and `stem="imagenet"` it is torchvision's network, whose bottlenecks put the stride on their 3x3
    convolution ("v1.5"), and with a doubled `inner` the wide one (arXiv:1605.07146).
    """

    blocks: tuple[int, ...] = (3, 3, 3)
    """Blocks of each stage; (n, n, n) makes a network of 6n+2 layers."""
    widths: tuple[int, ...] = (16, 16, 32, 64)
    """Channels of the stem and of each stage."""
    inner: float = 1.0
    """Channels inside a block, as a share of the stage's: 1/4 is usual for bottlenecks."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Two 3x3 convolutions, or a 3x3 one between two 1x1."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """A 3x3 convolution, or one of 7x7 and 3x3 max-pooling, both with stride 2."""
    shortcut: Literal["project", "pad"] = "project"
    """Where a block changes shape: a 1x1 convolution with batch norm, or, without parameters, every
    second pixel and as many channels of zeros on each side as are missing."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are taken after the ReLU, the stem's after pooling too."""
        x = self._stem(self.pixels(images), train)
        features, before = {"stem": x}, {}
        for i, (count, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), start=1):
            for j in range(count):
                stride = 2 if i > 1 and j == 0 else 1
                y = self._block(x, f"stage{i}_block{j}", width, stride, train)
                x = nn.relu(y)
            features[f"stage{i}"], before[f"stage{i}"] = x, y
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        pooled = {f"stage{len(self.blocks)}": x}
        return Outputs(logits.astype(jnp.float32), features, embedding, before, pooled)

    def _stem(self, x: Array, train: bool) -> Array:
        kernel, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = self.conv(self.widths[0], kernel, stride, name="stem")(x)
        x = nn.relu(self.batch_norm(train, name="stem_bn")(x))
        if self.stem == "cifar":
            return x
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    def _block(self, x: Array, name: str, width: int, stride: int, train: bool) -> Array:
        """A residual block without its last ReLU."""
        inner = scaled_size(width, self.inner)
        basic = ((inner, 3, stride), (width, 3, 1))
        bottleneck = ((inner, 1, 1), (inner, 3, stride), (width, 1, 1))
        layers = enumerate(basic if self.block == "basic" else bottleneck, start=1)
        y = x
        for k, (channels, kernel, step) in layers:
            y = nn.relu(y) if k > 1 else y
            y = self.conv(channels, kernel, step, name=f"{name}_conv{k}")(y)
            y = self.batch_norm(train, name=f"{name}_bn{k}")(y)
        return y + self._shortcut(x, f"{name}_shortcut", width, stride, train)

    def _shortcut(self, x: Array, name: str, width: int, stride: int, train: bool) -> Array:
        missing = width - x.shape[-1]
        if stride == 1 and missing == 0:
            return x
        if self.shortcut == "project":
            x = self.conv(width, 1, stride, name=name)(x)
            return self.batch_norm(train, name=f"{name}_bn")(x)
        if missing < 0:
            raise ValueError(
                f"ResNet.widths: {self.widths} become narrower, but padding can only add channels; "
                'let no stage be narrower than the one before, or choose shortcut="project".'
            )
        x = x[:, ::stride, ::stride]
        before = jnp.zeros((*x.shape[:3], missing // 2), x.dtype)
        after = jnp.zeros((*x.shape[:3], missing - missing // 2), x.dtype)
        return jnp.concatenate((before, x, after), axis=-1)

    def torch_names(self) -> tuple[Naming, ...]:
        """torchvision's names and RepDistiller's; those of akamaster/pytorch_resnet_cifar10.

        RepDistiller has the latter too, for its bottlenecks on CIFAR.
        """
        layers = (
            (r"^stem_bn$", "bn1"),
            (r"^stem$", "conv1"),
            (r"^stage(\d+)_block(\d+)_", r"layer\1.\2."),
        )
        torchvision = renaming(
            *layers,
            (r"shortcut_bn$", "downsample.1"),
            (r"shortcut$", "downsample.0"),
            ("^classifier$", "fc"),
        )
        akamaster = renaming(
            *layers,
            (r"shortcut_bn$", "shortcut.1"),
            (r"shortcut$", "shortcut.0"),
            ("^classifier$", "linear"),
        )
        if self.shortcut == "pad" or (self.block == "bottleneck" and self.stem == "cifar"):
            return akamaster, torchvision
        return torchvision, akamaster

    def scaled(self, width: float, depth: float) -> "ResNet":
        """The stem and all stages narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
        )


def _cifar(n: int) -> ResNet:
    return ResNet(blocks=(n, n, n))


def _basic(*blocks: int) -> ResNet:
    return imagenet(ResNet(blocks=blocks, widths=(64, 64, 128, 256, 512), stem="imagenet"))


def _bottleneck(*blocks: int) -> ResNet:
    model = ResNet(block="bottleneck", blocks=blocks, widths=(64, 256, 512, 1024, 2048), inner=0.25)
    return imagenet(model.clone(stem="imagenet"))


RESNETS: dict[str, ResNet] = {
    "resnet8": _cifar(1),
    "resnet14": _cifar(2),
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    "resnet8x4": _cifar(1).clone(widths=(32, 64, 128, 256)),
    "resnet32x4": _cifar(5).clone(widths=(32, 64, 128, 256)),
    "resnet20_pad": _cifar(3).clone(shortcut="pad"),
    "resnet32_pad": _cifar(5).clone(shortcut="pad"),
    "resnet44_pad": _cifar(7).clone(shortcut="pad"),
    "resnet56_pad": _cifar(9).clone(shortcut="pad"),
    "resnet110_pad": _cifar(18).clone(shortcut="pad"),
    "resnet50_cifar": ResNet(
        block="bottleneck", blocks=(3, 4, 6, 3), widths=(64, 256, 512, 1024, 2048), inner=0.25
    ),
    "resnet18": _basic(2, 2, 2, 2),
    "resnet34": _basic(3, 4, 6, 3),
    "resnet50": _bottleneck(3, 4, 6, 3),
    "resnet101": _bottleneck(3, 4, 23, 3),
    "resnet152": _bottleneck(3, 8, 36, 3),
    "wide_resnet50_2": _bottleneck(3, 4, 6, 3).clone(inner=0.5),
}
"""For CIFAR those of RepDistiller, and of the first paper (`pad`); for ImageNet torchvision's."""
