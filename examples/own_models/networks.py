"""Two networks that kdjax does not know: one written in Flax Linen, one in Flax NNX."""

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, renaming, scaled_size
from kdjax.types import AXIS, Outputs


class PlainNet(VisionModel):
    """Stages of 3x3 convolutions, a pool between them, and one classifier."""

    widths: tuple[int, ...] = (16, 32)
    """Channels of each stage."""
    blocks: int = 2
    """Convolutions in each stage."""
    dropout: float = 0.0
    """Share of what the classifier reads that is zero in training."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stage1`, `stage2`, … are taken before pooling."""
        x = self.pixels(images)
        features = {}
        for i, width in enumerate(self.widths, start=1):
            for j in range(self.blocks):
                layer = f"stage{i}_block{j}"
                x = self.conv(width, 3, name=f"{layer}_conv")(x)
                x = nn.relu(self.batch_norm(train, name=f"{layer}_bn")(x))
            features[f"stage{i}"] = x
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.mean(axis=(1, 2))
        y = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(y)
        return Outputs(logits.astype(jnp.float32), features, x)

    def scaled(self, width: float, depth: float) -> "PlainNet":
        """Narrower stages, and fewer convolutions in each."""
        return self.clone(
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
            blocks=scaled_size(self.blocks, depth),
        )

    def torch_names(self) -> tuple[Naming, ...]:
        """A file that says `layers.1.0.conv.weight` for our `stage1_block0_conv`."""
        return (renaming((r"^stage(\d+)_block(\d+)_", r"layers.\1.\2."), (r"^classifier", "head")),)


class Trunk(nnx.Module):
    """An NNX network that knows nothing of kdjax."""

    def __init__(self, channels, width, blocks, classes, axis_name, dtype, *, rngs: nnx.Rngs):
        self.blocks = blocks
        for j in range(blocks):
            conv = nnx.Conv(channels, width, (3, 3), use_bias=False, dtype=dtype, rngs=rngs)
            norm = nnx.BatchNorm(width, momentum=0.9, axis_name=axis_name, dtype=dtype, rngs=rngs)
            setattr(self, f"stage1_block{j}_conv", conv)
            setattr(self, f"stage1_block{j}_bn", norm)
            channels = width
        self.classifier = nnx.Linear(width, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, train: bool, drop) -> tuple[Array, Array, Array]:
        """Logits, the last feature map, and what the classifier reads."""
        for j in range(self.blocks):
            x = getattr(self, f"stage1_block{j}_conv")(x)
            x = getattr(self, f"stage1_block{j}_bn")(x, use_running_average=not train)
            x = nnx.relu(x)
        pooled = x.mean(axis=(1, 2))
        return self.classifier(drop(pooled)), x, pooled


class NNXNet(VisionModel):
    """`Trunk` as kdjax sees it: the fields are here, the layers are there."""

    width: int = 16
    """Channels."""
    blocks: int = 2
    """Convolutions."""
    dropout: float = 0.0
    """Share of what the classifier reads that is zero in training."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """One feature map, `stage1`."""
        x = self.pixels(images)
        axis = AXIS if self.sync_batch_norm else None
        fields = (x.shape[-1], self.width, self.blocks, self.num_classes, axis, self.dtype)
        trunk = nnx.bridge.ToLinen(Trunk, args=fields)
        nn.share_scope(self, trunk)  # its layers are ours, so that blocks are found by name
        drop = nn.Dropout(self.dropout, deterministic=not train)  # Linen's, called by NNX
        logits, features, pooled = trunk(x, train, drop)
        stage = {"stage1": features}
        return Outputs(logits.astype(jnp.float32), stage, pooled, pooled=stage)

    def scaled(self, width: float, depth: float) -> "NNXNet":
        """Narrower and shorter."""
        return self.clone(
            width=scaled_size(self.width, width), blocks=scaled_size(self.blocks, depth)
        )
