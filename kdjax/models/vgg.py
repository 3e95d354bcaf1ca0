"""VGG (Simonyan and Zisserman, 2015, arXiv:1409.1556) with batch norm, for CIFAR and ImageNet."""

import re

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, adaptive_pool, imagenet, scaled_size
from kdjax.models.dropout import dropout
from kdjax.models.kernels import max_pool
from kdjax.types import Outputs

GRID = 7
"""Pixels a side of what the first hidden layer reads, whatever the size of the image."""


class VGG(VisionModel):
    """Stages of 3x3 convolutions, batch norm and ReLU, with 2x2 max-pooling between them.

    The defaults are the benchmark form of the distillation literature: three poolings, and the
    classifier reads the mean over all pixels. torchvision's form pools after each stage and has
    two hidden layers.

    The stages count from 0: the first takes the place of other networks' stem, and its feature
    that name, so that stages of the same name match across families as in RepDistiller.
    """

    convolutions: tuple[int, ...] = (1, 1, 1, 1, 1)
    """Convolutions of each stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage."""
    pools: int = 3
    """How many stages, from the first, max-pooling follows; RepDistiller has 4 for 64x64 pixels."""
    dense: tuple[int, ...] = ()
    """Units of the hidden layers; with any, the last map is first brought to 7x7 pixels."""
    dropout: float = 0.0
    """Share of each hidden layer that the next layer does not see in training; the paper has 0.5.
    Without hidden layers, of the embedding."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are taken after the ReLU and before pooling."""
        x = self.pixels(images)
        self._check(*x.shape[1:3])
        features, before = {}, {}
        for i, (count, width) in enumerate(zip(self.convolutions, self.widths, strict=True)):
            for j in range(count):
                y = self._block(x, f"stage{i}_block{j}", width, train)
                x = nn.relu(y)
            features[f"stage{i}" if i else "stem"] = x
            if i:
                before[f"stage{i}"] = y
            if i < self.pools:
                x = max_pool(x, 2)
        embedding = self._hidden(x, train) if self.dense else x.mean(axis=(1, 2))
        y = dropout(embedding, self.dropout, train, "classifier_dropout")
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(y)
        pooled = {} if self.dense else {f"stage{len(self.widths) - 1}": x}
        return Outputs(logits.astype(jnp.float32), features, embedding, before, pooled)

    def _check(self, height: int, width: int) -> None:
        if len(self.widths) != len(self.convolutions):
            raise ValueError(
                f"VGG.widths: {len(self.widths)} values for {len(self.convolutions)} stages; give "
                "as many as VGG.convolutions."
            )
        pools = min(self.pools, len(self.widths))
        if min(height, width) >> pools == 0:
            raise ValueError(
                f"VGG.pools: {pools} poolings leave nothing of {height}x{width} pixels; "
                f"give at most {min(height, width).bit_length() - 1}, or larger images."
            )

    def _block(self, x: Array, name: str, width: int, train: bool) -> Array:
        """Without the ReLU."""
        x = self.conv(width, 3, use_bias=True, name=f"{name}_conv")(x)
        return self.batch_norm(train, name=f"{name}_bn")(x)

    def _hidden(self, x: Array, train: bool) -> Array:
        x = adaptive_pool(x, GRID, GRID)
        axes: tuple[int, ...] = (-3, -2, -1)  # the first layer reads the map, the others vectors
        for i, units in enumerate(self.dense):
            x = dropout(x, self.dropout, train, f"dense{i}_dropout") if i else x
            x = nn.DenseGeneral(units, axis=axes, dtype=self.dtype, name=f"dense{i}")(x)
            x, axes = nn.relu(x), (-1,)
        return x

    def torch_names(self) -> tuple[Naming, ...]:
        """RepDistiller's names, `block1.0`; torchvision's, `features.3`."""
        # A convolution, its batch norm and its ReLU have a number each, and so has a pooling.
        sizes = [3 * count + (i < self.pools) for i, count in enumerate(self.convolutions)]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]

        def place(layer: str) -> tuple[int, int] | None:
            found = re.fullmatch(r"stage(\d+)_block(\d+)_(conv|bn)", layer)
            return found and (int(found[1]), 3 * int(found[2]) + (found[3] == "bn"))

        def head(layer: str) -> str:
            if layer == "classifier":
                return f"classifier.{3 * len(self.dense)}" if self.dense else layer
            return f"classifier.{3 * int(layer.removeprefix('dense'))}"

        def repdistiller(layer: str) -> str:
            at = place(layer)
            return f"block{at[0]}.{at[1]}" if at else head(layer)

        def torchvision(layer: str) -> str:
            at = place(layer)
            return f"features.{starts[at[0]] + at[1]}" if at else head(layer)

        return (torchvision, repdistiller) if self.dense else (repdistiller, torchvision)

    def scaled(self, width: float, depth: float) -> "VGG":
        """All stages and hidden layers narrower, each stage shorter."""
        return self.clone(
            convolutions=tuple(scaled_size(count, depth) for count in self.convolutions),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
            dense=tuple(scaled_size(units, width) for units in self.dense),
        )


VGGS: dict[str, VGG] = {
    "vgg8": VGG(convolutions=(1, 1, 1, 1, 1)),
    "vgg11": VGG(convolutions=(1, 1, 2, 2, 2)),
    "vgg13": VGG(convolutions=(2, 2, 2, 2, 2)),
    "vgg16": VGG(convolutions=(2, 2, 3, 3, 3)),
    "vgg19": VGG(convolutions=(2, 2, 4, 4, 4)),
    "vgg16_bn": imagenet(VGG(convolutions=(2, 2, 3, 3, 3), pools=5, dense=(4096, 4096))),
}
"""For CIFAR those of RepDistiller, for ImageNet torchvision's."""
