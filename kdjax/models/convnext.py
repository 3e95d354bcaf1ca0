"""ConvNeXt: a convolutional network with a transformer's habits (Liu et al., 2022).

arXiv:2201.03545.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.models.dropout import drop_path, linear_rates
from kdjax.types import Outputs

# PyTorch truncates this one at ±2, a hundred standard deviations away.
initial = nn.initializers.normal(0.02)


class ConvNeXt(VisionModel):
    """Patches, then stages of residual blocks: a depthwise convolution and two linear layers.

    Each stage after the first halves the resolution. The defaults are torchvision's
    `convnext_tiny`.
    """

    blocks: tuple[int, ...] = (3, 3, 9, 3)
    """Blocks of each stage."""
    widths: tuple[int, ...] = (96, 192, 384, 768)
    """Channels of each stage; the stem has those of the first."""
    expansion: int = 4
    """Hidden units of a block, for each of its channels."""
    patch: int = 4
    """Height and width of the patches the stem cuts an image into."""
    layer_scale: float = 1e-6
    """What the output of every block is multiplied by at first, channel by channel."""

    drop_path: float = 0.0
    """Stochastic depth, in training: how often an example goes without the last block; 0 in the
    first and linear between them. The paper has 0.1 for the tiny network."""

    stem_widths: ClassVar[int] = 0

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features: `stem` is taken after the layer norm, `stage1`, … after the addition."""
        x = self.pixels(images)
        self._check(*x.shape[1:3])
        x = self._patches(x, self.widths[0], self.patch, "stem")
        x = self._norm("stem_norm")(x)
        features = {"stem": x}
        rates = iter(linear_rates(self.drop_path, sum(self.blocks)))
        for i, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True), start=1):
            if i > 1:
                x = self._norm(f"stage{i}_down_norm")(x)
                x = self._patches(x, width, 2, f"stage{i}_down")
            for j in range(count):
                x = self._block(x, f"stage{i}_block{j}", next(rates), train)
            features[f"stage{i}"] = x
        embedding = self._norm("head_norm")(x.mean(axis=(1, 2)))
        logits = self._linear(self.num_classes, "classifier")(embedding)
        return Outputs(logits.astype(jnp.float32), features, embedding)

    def _block(self, x: Array, name: str, skipped: float, train: bool) -> Array:
        width = x.shape[-1]
        y = self.conv(
            width,
            7,
            use_bias=True,
            kernel_init=initial,
            feature_group_count=width,
            name=f"{name}_conv",
        )(x)
        y = self._norm(f"{name}_norm")(y)
        y = nn.gelu(self._linear(self.expansion * width, f"{name}_expand")(y), approximate=False)
        y = self._linear(width, f"{name}_project")(y)
        start = nn.initializers.constant(self.layer_scale)
        scale = self.param(f"{name}_layer_scale", start, (width,))
        return x + drop_path(y * scale.astype(self.dtype), skipped, train, f"{name}_path")

    def _patches(self, x: Array, width: int, side: int, name: str) -> Array:
        """A convolution of patches that do not overlap."""
        conv = self.conv(
            width, side, side, padding=0, use_bias=True, kernel_init=initial, name=name
        )
        return conv(x)

    def _linear(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, kernel_init=initial, name=name)

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)

    def torch_names(self) -> tuple[Naming, ...]:
        """torchvision's names."""
        # Its list of features: the stem, then stages and what lies between them in turn.
        stages = range(1, len(self.widths) + 1)
        return (
            renaming(
                (r"^stem_norm$", "features.0.1"),
                (r"^stem$", "features.0.0"),
                *((rf"^stage{i}_down_norm$", f"features.{2 * i - 2}.0") for i in stages),
                *((rf"^stage{i}_down$", f"features.{2 * i - 2}.1") for i in stages),
                *((rf"^stage{i}_block(\d+)_", rf"features.{2 * i - 1}.\1.") for i in stages),
                # Reorderings of the axes and the activation count.
                (r"conv$", "block.0"),
                (r"\.norm$", ".block.2"),
                (r"expand$", "block.3"),
                (r"project$", "block.5"),
                (r"^head_norm$", "classifier.0"),
                (r"^classifier$", "classifier.2"),
            ),
        )

    def scaled(self, width: float, depth: float) -> "ConvNeXt":
        """All stages narrower and shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
        )

    def _check(self, height: int, width: int) -> None:
        least = self.patch << (len(self.widths) - 1)
        if min(height, width) < least:
            raise ValueError(
                f"ConvNeXt.patch: {self.patch} leaves nothing of {height}x{width} pixels after "
                f"{len(self.widths)} stages; give smaller patches, or images of {least}x{least}."
            )


CONVNEXTS = {"convnext_tiny": imagenet(ConvNeXt())}
