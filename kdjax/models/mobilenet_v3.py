"""MobileNetV3 (Howard et al., 2019, arXiv:1905.02244)."""

from itertools import islice
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, evenly_spaced, imagenet, scaled_size
from kdjax.models.batch_norm import BatchNorm
from kdjax.models.dropout import dropout
from kdjax.models.inverted_residual import Block
from kdjax.types import Outputs


class MobileNetV3(VisionModel):
    """Searched inverted residual blocks, some with squeeze-and-excitation and hard-swish.

    As in torchvision. The defaults are the large network. Its hidden layer comes after pooling, and
    the classifier reads that.
    """

    blocks: tuple[int, ...] = (1, 2, 3, 4, 2, 3)
    """Blocks of each stage."""
    widths: tuple[int, ...] = (16, 16, 24, 40, 80, 112, 160)
    """Channels of the stem and of each stage."""
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 1, 2)
    """Strides of the stem and of each stage's first block."""
    kernels: tuple[int, ...] = (3, 3, 5, 3, 3, 5)
    """Sizes of the depthwise convolutions of each stage."""
    hard_swish: tuple[bool, ...] = (False, False, False, True, True, True)
    """Whether the blocks of each stage have hard-swish, as all other layers, instead of ReLU."""
    inner: tuple[int, ...] = (0, 64, 72, 72, 120, 120, 240, 200, 184, 184, 480, 672, 672, 960, 960)
    """Channels inside each block of all stages in turn; 0 leaves the expanding convolution out."""
    squeezed: tuple[int, ...] = (0, 0, 0, 24, 32, 32, 0, 0, 0, 0, 120, 168, 168, 240, 240)
    """Channels between squeezing and exciting in each block; 0 leaves both out."""
    head: int = 960
    """Channels of the last convolution."""
    hidden: int = 1280
    """Units of the hidden layer."""
    dropout: float = 0.0
    """Share of the embedding that the classifier does not see in training; the paper has 0.2."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Feature `stem` is taken after the activation; `stage1`, … have none."""
        x = self.conv(self.widths[0], 3, self.strides[0], name="stem")(self.pixels(images))
        x = nn.hard_swish(self.batch_norm(train, name="stem_bn")(x))
        features = {"stem": x}
        for i, stage in enumerate(self._stages(), start=1):
            for j, block in enumerate(stage):
                x = block(self, x, f"stage{i}_block{j}", train)
            features[f"stage{i}"] = x
        x = self.conv(self.head, 1, name="head")(x)
        x = nn.hard_swish(self.batch_norm(train, name="head_bn")(x))
        x = nn.Dense(self.hidden, dtype=self.dtype, name="hidden")(x.mean(axis=(1, 2)))
        embedding = nn.hard_swish(x)
        x = dropout(embedding, self.dropout, train, "classifier_dropout")
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x)
        return Outputs(logits.astype(jnp.float32), features, embedding)

    def batch_norm(
        self, train: bool, *, momentum: float = 0.99, epsilon: float = 1e-3, **fields: Any
    ) -> BatchNorm:
        """The published networks have slower statistics and a larger epsilon than others."""
        return super().batch_norm(train, momentum=momentum, epsilon=epsilon, **fields)

    def _stages(self) -> list[list[Block]]:
        for field in ("inner", "squeezed"):
            if len(getattr(self, field)) != sum(self.blocks):
                raise ValueError(
                    f"MobileNetV3.{field}: {getattr(self, field)!r} holds a value for each block; "
                    f"give {sum(self.blocks)} as in blocks={self.blocks!r}."
                )
        inside = zip(self.inner, self.squeezed, strict=True)
        stages = zip(self.widths[1:], self.strides[1:], self.kernels, self.hard_swish, strict=True)
        return [
            [
                Block(
                    width=width,
                    expanded=expanded,
                    stride=stride if j == 0 else 1,
                    activation=nn.hard_swish if hard_swish else nn.relu,
                    kernel=kernel,
                    squeezed=squeezed,
                    gate=nn.hard_sigmoid,
                )
                for j, (expanded, squeezed) in enumerate(islice(inside, count))
            ]
            for count, (width, stride, kernel, hard_swish) in zip(self.blocks, stages, strict=True)
        ]

    def torch_names(self) -> tuple[Naming, ...]:
        """torchvision's."""
        last = sum(self.blocks) + 1
        names = {
            "stem": "features.0.0",
            "stem_bn": "features.0.1",
            "head": f"features.{last}.0",
            "head_bn": f"features.{last}.1",
            "hidden": "classifier.0",
            "classifier": "classifier.3",
        }
        n = 1  # Blocks are numbered across stages.
        for i, stage in enumerate(self._stages(), start=1):
            for j, block in enumerate(stage):
                names |= block.torchvision_names(f"stage{i}_block{j}", f"features.{n}.block")
                n += 1
        return (names.__getitem__,)

    def scaled(self, width: float, depth: float) -> "MobileNetV3":
        """All layers narrower, each stage shorter."""

        def narrower(sizes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(scaled_size(size, width) if size else 0 for size in sizes)

        kept, start = [], 0
        for count in self.blocks:
            kept += [start + j for j in evenly_spaced(count, scaled_size(count, depth))]
            start += count
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=narrower(self.widths),
            inner=narrower(tuple(self.inner[n] for n in kept)),
            squeezed=narrower(tuple(self.squeezed[n] for n in kept)),
            head=scaled_size(self.head, width),
            hidden=scaled_size(self.hidden, width),
        )


MOBILENETS_V3 = {
    "mobilenet_v3_large": imagenet(MobileNetV3()),
    "mobilenet_v3_small": imagenet(
        MobileNetV3(
            blocks=(1, 2, 3, 2, 3),
            widths=(16, 16, 24, 40, 48, 96),
            strides=(2, 2, 2, 2, 1, 2),
            kernels=(3, 3, 5, 5, 5),
            hard_swish=(False, False, True, True, True),
            inner=(0, 72, 88, 96, 240, 240, 120, 144, 288, 576, 576),
            squeezed=(8, 0, 0, 24, 64, 64, 32, 40, 72, 144, 144),
            head=576,
            hidden=1024,
        )
    ),
}
