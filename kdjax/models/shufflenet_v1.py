"""ShuffleNet, built of grouped pointwise convolutions (Zhang et al., 2018, arXiv:1707.01083)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, renaming, scaled_size
from kdjax.types import Outputs


def shuffle(x: Array, groups: int) -> Array:
    """Deal the channels out, so that the next grouped layer reads from every group of this one."""
    *space, channels = x.shape
    return x.reshape(*space, groups, channels // groups).swapaxes(-1, -2).reshape(x.shape)


class ShuffleNetV1(VisionModel):
    """A pointwise stem and stages of shuffled bottlenecks; each stage halves the resolution.

    RepDistiller's form for small images, `ShuffleV1`. It differs from the paper: the stem neither
    strides nor pools, and the bottleneck of a stage's first block is a quarter of the channels
    that block adds, not of the stage's.
    """

    blocks: tuple[int, ...] = (4, 8, 4)
    """Blocks of each stage; the first halves the resolution."""
    widths: tuple[int, ...] = (24, 240, 480, 960)
    """Channels of the stem and of each stage: rising multiples of `groups`."""
    groups: int = 3
    """Groups of the pointwise convolutions, but for the very first one, whose input is narrow."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are taken after the ReLU."""
        self._check()
        x = self.conv(self.widths[0], 1, name="stem")(self.pixels(images))
        x = nn.relu(self.batch_norm(train, name="stem_bn")(x))
        features, before = {"stem": x}, {}
        for i, (count, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), start=1):
            for j in range(count):
                stride = 2 if j == 0 else 1
                groups = 1 if i == 1 and j == 0 else self.groups
                y = self._block(x, f"stage{i}_block{j}", width, stride, groups, train)
                x = nn.relu(y)
            features[f"stage{i}"], before[f"stage{i}"] = x, y
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        pooled = {f"stage{len(self.blocks)}": x}
        return Outputs(logits.astype(jnp.float32), features, embedding, before, pooled)

    def _block(
        self, x: Array, name: str, width: int, stride: int, groups: int, train: bool
    ) -> Array:
        """A residual block without its last ReLU.

        With a stride it is laid beside its pooled input, not added to it.
        """
        added = width - x.shape[-1] if stride > 1 else width
        inner = scaled_size(added, 1 / 4, self.groups)
        y = self.conv(inner, 1, feature_group_count=groups, name=f"{name}_conv1")(x)
        y = shuffle(nn.relu(self.batch_norm(train, name=f"{name}_bn1")(y)), groups)
        y = self.conv(inner, 3, stride, feature_group_count=inner, name=f"{name}_conv2")(y)
        y = nn.relu(self.batch_norm(train, name=f"{name}_bn2")(y))
        y = self.conv(added, 1, feature_group_count=self.groups, name=f"{name}_conv3")(y)
        y = self.batch_norm(train, name=f"{name}_bn3")(y)
        if stride == 1:
            return y + x
        x = nn.avg_pool(x, (3, 3), strides=(stride, stride), padding=((1, 1), (1, 1)))
        return jnp.concatenate([y, x], axis=-1)

    def torch_names(self) -> tuple[Naming, ...]:
        """RepDistiller's names."""
        return (
            renaming(
                (r"^stem_bn$", "bn1"),
                (r"^stem$", "conv1"),
                (r"^stage(\d+)_block(\d+)_", r"layer\1.\2."),
                (r"^classifier$", "linear"),
            ),
        )

    def scaled(self, width: float, depth: float) -> "ShuffleNetV1":
        """The stem and all stages narrower, each stage shorter; the groups stay."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=self._widths(width),
        )

    def _widths(self, kept: float) -> tuple[int, ...]:
        """These shares of the widths, or what is nearest among rising multiples of `groups`."""
        widths = [scaled_size(self.widths[0], kept, self.groups)]
        for channels in self.widths[1:]:
            # The first block of a stage adds channels to those it reads.
            widths.append(max(scaled_size(channels, kept, self.groups), widths[-1] + self.groups))
        return tuple(widths)

    def _check(self) -> None:
        if self.widths != self._widths(1.0):
            raise ValueError(
                f"ShuffleNetV1.widths: {self.widths} are not rising multiples of groups, "
                f"{self.groups}; give for example {self._widths(1.0)}."
            )


SHUFFLENETS_V1 = {"shuffle_v1": ShuffleNetV1()}
