"""RegNetY: residual bottlenecks of regular widths (Radosavovic et al., 2020, arXiv:2003.13678)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.types import Outputs


class RegNet(VisionModel):
    """A stem and stages of bottlenecks with grouped 3x3 convolutions and squeeze-excite.

    Stem and stages halve the resolution each. The bottlenecks do not narrow: all of a block's
    convolutions have the width of its stage. The defaults are torchvision's `regnet_y_400mf`.
    """

    blocks: tuple[int, ...] = (1, 3, 6, 6)
    """Blocks of each stage."""
    widths: tuple[int, ...] = (32, 48, 104, 208, 440)
    """Channels of the stem and of each stage; those of a stage are multiples of `group_width`."""
    group_width: int = 8
    """Channels of each group of the 3x3 convolutions; it stays when the network shrinks."""
    squeeze: float = 0.25
    """Hidden units of squeeze-excite, for each channel that the block reads."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are taken after the ReLU."""
        self._check()
        x = self.conv(self.widths[0], 3, 2, name="stem")(self.pixels(images))
        x = nn.relu(self.batch_norm(train, name="stem_bn")(x))
        features, before = {"stem": x}, {}
        for i, (count, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), start=1):
            for j in range(count):
                stride = 2 if j == 0 else 1
                y = self._block(x, f"stage{i}_block{j}", width, stride, train)
                x = nn.relu(y)
            features[f"stage{i}"], before[f"stage{i}"] = x, y
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        pooled = {f"stage{len(self.blocks)}": x}
        return Outputs(logits.astype(jnp.float32), features, embedding, before, pooled)

    def _block(self, x: Array, name: str, width: int, stride: int, train: bool) -> Array:
        """A residual block without its last ReLU."""
        y = self.conv(width, 1, name=f"{name}_conv1")(x)
        y = nn.relu(self.batch_norm(train, name=f"{name}_bn1")(y))
        groups = width // self.group_width
        y = self.conv(width, 3, stride, feature_group_count=groups, name=f"{name}_conv2")(y)
        y = nn.relu(self.batch_norm(train, name=f"{name}_bn2")(y))
        y = self._squeeze_excite(y, name, scaled_size(x.shape[-1], self.squeeze))
        y = self.conv(width, 1, name=f"{name}_conv3")(y)
        y = self.batch_norm(train, name=f"{name}_bn3")(y)
        if stride != 1 or x.shape[-1] != width:
            x = self.conv(width, 1, stride, name=f"{name}_shortcut")(x)
            x = self.batch_norm(train, name=f"{name}_shortcut_bn")(x)
        return x + y

    def _squeeze_excite(self, x: Array, name: str, hidden: int) -> Array:
        """Weigh the channels by what their averages say (Hu et al., 2018, arXiv:1709.01507)."""
        weights = x.mean(axis=(1, 2), keepdims=True)
        weights = nn.relu(self.conv(hidden, 1, use_bias=True, name=f"{name}_squeeze")(weights))
        weights = self.conv(x.shape[-1], 1, use_bias=True, name=f"{name}_excite")(weights)
        return x * nn.sigmoid(weights)

    def torch_names(self) -> tuple[Naming, ...]:
        """torchvision's names."""
        return (
            renaming(
                (r"^stem_bn$", "stem.1"),
                (r"^stem$", "stem.0"),
                (r"^stage(\d+)_block(\d+)_", r"trunk_output.block\1.block\1-\2."),
                (r"shortcut_bn$", "proj.1"),
                (r"shortcut$", "proj.0"),
                (r"conv1$", "f.a.0"),
                (r"bn1$", "f.a.1"),
                (r"conv2$", "f.b.0"),
                (r"bn2$", "f.b.1"),
                (r"squeeze$", "f.se.fc1"),
                (r"excite$", "f.se.fc2"),
                (r"conv3$", "f.c.0"),
                (r"bn3$", "f.c.1"),
                (r"^classifier$", "fc"),
            ),
        )

    def scaled(self, width: float, depth: float) -> "RegNet":
        """The stem and all stages narrower, each stage shorter; the width of a group stays."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=self._widths(width),
        )

    def _widths(self, kept: float) -> tuple[int, ...]:
        stem, *stages = self.widths
        return (
            scaled_size(stem, kept),
            *(scaled_size(width, kept, self.group_width) for width in stages),
        )

    def _check(self) -> None:
        if self.widths != self._widths(1.0):
            raise ValueError(
                f"RegNet.widths: {self.widths}, but a stage's channels come in groups of "
                f"group_width, {self.group_width}; give for example {self._widths(1.0)}."
            )


REGNETS = {"regnet_y_400mf": imagenet(RegNet())}
