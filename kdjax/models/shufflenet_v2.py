"""ShuffleNet V2, built of split and shuffled channels (Ma et al., 2018, arXiv:1807.11164)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.models.shufflenet_v1 import shuffle
from kdjax.types import Outputs


class ShuffleNetV2(VisionModel):
    """A stem, stages of two-branch blocks and a wide pointwise head; each stage halves the map.

    A block works on one half of the channels and passes the other half on.
    """

    stem: Literal["cifar", "imagenet"] = "cifar"
    """`cifar` (RepDistiller): a pointwise convolution, for small images. `imagenet` (the paper,
    torchvision): a 3x3 convolution and a max-pooling, each of stride 2."""
    blocks: tuple[int, ...] = (4, 8, 4)
    """Blocks of each stage; the first halves the resolution."""
    widths: tuple[int, ...] = (24, 116, 232, 464)
    """Channels of the stem and of each stage; those of a stage are even."""
    head: int = 1024
    """Channels of the last convolution, whose average the classifier reads."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features: `stem` is taken after any pooling, `stage1`, … are taken after the shuffle."""
        self._check()
        kernel, stride = (1, 1) if self.stem == "cifar" else (3, 2)
        x = self.conv(self.widths[0], kernel, stride, name="stem")(self.pixels(images))
        x = nn.relu(self.batch_norm(train, name="stem_bn")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        features, before = {"stem": x}, {}
        for i, (count, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), start=1):
            for j in range(count):
                stride = 2 if j == 0 else 1
                y = self._block(x, f"stage{i}_block{j}", width // 2, stride, train)
                x = nn.relu(y)
            features[f"stage{i}"], before[f"stage{i}"] = x, y
        x = self.conv(self.head, 1, name="head")(x)
        x = nn.relu(self.batch_norm(train, name="head_bn")(x))
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        return Outputs(logits.astype(jnp.float32), features, embedding, before)

    def _block(self, x: Array, name: str, half: int, stride: int, train: bool) -> Array:
        """Both branches without their last ReLU, which changes nothing where the left one is the
        identity. With a stride both read all channels, and the left one is not the identity.
        """
        if stride == 1:
            left, right = jnp.split(x, 2, axis=-1)
        else:
            left, right = self._left(x, name, half, stride, train), x
        right = self.conv(half, 1, name=f"{name}_conv1")(right)
        right = nn.relu(self.batch_norm(train, name=f"{name}_bn1")(right))
        right = self.conv(half, 3, stride, feature_group_count=half, name=f"{name}_conv2")(right)
        right = self.batch_norm(train, name=f"{name}_bn2")(right)
        right = self.conv(half, 1, name=f"{name}_conv3")(right)
        right = self.batch_norm(train, name=f"{name}_bn3")(right)
        return shuffle(jnp.concatenate([left, right], axis=-1), 2)

    def _left(self, x: Array, name: str, half: int, stride: int, train: bool) -> Array:
        channels = x.shape[-1]
        x = self.conv(channels, 3, stride, feature_group_count=channels, name=f"{name}_left_conv1")(
            x
        )
        x = self.batch_norm(train, name=f"{name}_left_bn1")(x)
        x = self.conv(half, 1, name=f"{name}_left_conv2")(x)
        return self.batch_norm(train, name=f"{name}_left_bn2")(x)

    def torch_names(self) -> tuple[Naming, ...]:
        """RepDistiller's names for the `cifar` stem, torchvision's for the `imagenet` one."""
        return (_REPDISTILLER,) if self.stem == "cifar" else (_TORCHVISION,)

    def scaled(self, width: float, depth: float) -> "ShuffleNetV2":
        """The stem, all stages and the head narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=self._widths(width),
            head=scaled_size(self.head, width),
        )

    def _widths(self, kept: float) -> tuple[int, ...]:
        stem, *stages = self.widths
        return (scaled_size(stem, kept), *(scaled_size(channels, kept, 2) for channels in stages))

    def _check(self) -> None:
        if self.widths != self._widths(1.0):
            raise ValueError(
                f"ShuffleNetV2.widths: {self.widths}, but the stages split their channels in two; "
                f"give for example {self._widths(1.0)}."
            )


_REPDISTILLER = renaming(
    (r"^stem_bn$", "bn1"),
    (r"^stem$", "conv1"),
    (r"^head_bn$", "bn2"),
    (r"^head$", "conv2"),
    # Its first blocks number the right branch after the left one.
    (r"^stage(\d+)_block0_(conv|bn)1$", r"layer\1.0.\g<2>3"),
    (r"^stage(\d+)_block0_(conv|bn)2$", r"layer\1.0.\g<2>4"),
    (r"^stage(\d+)_block0_(conv|bn)3$", r"layer\1.0.\g<2>5"),
    (r"^stage(\d+)_block(\d+)_(left_)?", r"layer\1.\2."),
    (r"^classifier$", "linear"),
)

_TORCHVISION = renaming(
    (r"^stem_bn$", "conv1.1"),
    (r"^stem$", "conv1.0"),
    (r"^head_bn$", "conv5.1"),
    (r"^head$", "conv5.0"),
    # Its first stage is the stem.
    *((rf"^stage{i}_block(\d+)_", rf"stage{i + 1}.\1.") for i in (3, 2, 1)),
    (r"left_conv1$", "branch1.0"),
    (r"left_bn1$", "branch1.1"),
    (r"left_conv2$", "branch1.2"),
    (r"left_bn2$", "branch1.3"),
    # Activations count: there is one after the first and the third batch norm.
    (r"conv1$", "branch2.0"),
    (r"bn1$", "branch2.1"),
    (r"conv2$", "branch2.3"),
    (r"bn2$", "branch2.4"),
    (r"conv3$", "branch2.5"),
    (r"bn3$", "branch2.6"),
    (r"^classifier$", "fc"),
)


SHUFFLENETS_V2 = {
    "shuffle_v2": ShuffleNetV2(),
    "shufflenet_v2_x1_0": imagenet(ShuffleNetV2(stem="imagenet")),
}
