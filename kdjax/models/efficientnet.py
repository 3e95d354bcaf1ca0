"""EfficientNet (Tan and Le, 2019, arXiv:1905.11946)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, scaled_size
from kdjax.models.dropout import dropout
from kdjax.models.inverted_residual import Block
from kdjax.types import Outputs


class EfficientNet(VisionModel):
    """Inverted residual blocks with squeeze-and-excitation and SiLU; the defaults are B0.

    As in torchvision.
    """

    blocks: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    """Blocks of each stage."""
    widths: tuple[int, ...] = (32, 16, 24, 40, 80, 112, 192, 320)
    """Channels of the stem and of each stage. Squeezing leaves a quarter of what a block reads."""
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 1, 2, 1)
    """Strides of the stem and of each stage's first block."""
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    """Sizes of the depthwise convolutions of each stage."""
    expansions: tuple[int, ...] = (0, 6, 6, 6, 6, 6, 6)
    """Channels inside the blocks of each stage, over those they read; 0 leaves the expanding
    convolution out."""
    head: int = 1280
    """Channels of the last convolution, which the classifier reads."""
    dropout: float = 0.0
    """Share of the embedding that the classifier does not see in training; the paper has 0.2."""
    drop_path: float = 0.0
    """Stochastic depth, in training: how often an example goes without what block n of N adds, for
    n = N; as in torchvision it is `drop_path · n / N` for n = 0, 1, …, N - 1. The paper has 0.2."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Feature `stem` is taken after the activation; `stage1`, … have none."""
        x = self.conv(self.widths[0], 3, self.strides[0], name="stem")(self.pixels(images))
        x = nn.silu(self.batch_norm(train, name="stem_bn")(x))
        features = {"stem": x}
        for i, stage in enumerate(self._stages(), start=1):
            for j, block in enumerate(stage):
                x = block(self, x, f"stage{i}_block{j}", train)
            features[f"stage{i}"] = x
        x = self.conv(self.head, 1, name="head")(x)
        x = nn.silu(self.batch_norm(train, name="head_bn")(x))
        embedding = x.mean(axis=(1, 2))
        x = dropout(embedding, self.dropout, train, "classifier_dropout")
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x)
        return Outputs(logits.astype(jnp.float32), features, embedding)

    def _stages(self) -> list[list[Block]]:
        stages: list[list[Block]] = []
        source, n = self.widths[0], 0
        rows = zip(
            self.blocks,
            self.widths[1:],
            self.strides[1:],
            self.kernels,
            self.expansions,
            strict=True,
        )
        for count, width, stride, kernel, expansion in rows:
            first = self._block(source, width, stride, kernel, expansion)
            other = self._block(width, width, 1, kernel, expansion)
            stage = [first] + [other] * (count - 1)
            rates = [self.drop_path * (n + j) / sum(self.blocks) for j in range(count)]
            stages.append([b._replace(skipped=r) for b, r in zip(stage, rates, strict=True)])
            source, n = width, n + count
        return stages

    def _block(self, source: int, width: int, stride: int, kernel: int, expansion: int) -> Block:
        return Block(
            width=width,
            expanded=expansion * source,
            stride=stride,
            activation=nn.silu,
            kernel=kernel,
            squeezed=max(1, source // 4),
            squeezed_activation=nn.silu,
        )

    def torch_names(self) -> tuple[Naming, ...]:
        """torchvision's."""
        last = len(self.blocks) + 1
        names = {
            "stem": "features.0.0",
            "stem_bn": "features.0.1",
            "head": f"features.{last}.0",
            "head_bn": f"features.{last}.1",
            "classifier": "classifier.1",
        }
        for i, stage in enumerate(self._stages(), start=1):
            for j, block in enumerate(stage):
                names |= block.torchvision_names(f"stage{i}_block{j}", f"features.{i}.{j}.block")
        return (names.__getitem__,)

    def scaled(self, width: float, depth: float) -> "EfficientNet":
        """The stem, all stages and the head narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
            head=scaled_size(self.head, width),
        )


EFFICIENTNETS = {"efficientnet_b0": imagenet(EfficientNet())}
