"""The wide residual networks for CIFAR (Zagoruyko and Komodakis, 2016, arXiv:1605.07146)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, renaming, scaled_size
from kdjax.models.dropout import dropout
from kdjax.types import Outputs


class WideResNet(VisionModel):
    """Residual blocks with batch norm and ReLU before each convolution (arXiv:1603.05027).

    A block that changes shape also normalises what its shortcut, a 1x1 convolution, reads.
    """

    blocks: tuple[int, ...] = (2, 2, 2)
    """Blocks of each stage; (n, n, n) makes a network of 6n+4 layers."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of the stem and of each stage; each stage after the first halves the resolution."""
    dropout: float = 0.0
    """Share of what the second convolution of a block reads that is zero in training; the paper has
    0.3 on CIFAR, RepDistiller 0."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are the sums on the residual stream: before any ReLU.

        Preactivations are what the batch norm after a stage makes of its sum, as in RepDistiller.
        """
        x = self.conv(self.widths[0], 3, name="stem")(self.pixels(images))
        features, before = {"stem": x}, {}
        for i, (count, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), start=1):
            for j in range(count):
                stride = 2 if i > 1 and j == 0 else 1
                name = f"stage{i}_block{j}"
                y = self.batch_norm(train, name=f"{name}_bn1")(x)
                if i > 1 and j == 0:
                    before[f"stage{i - 1}"] = y
                x = self._block(x, nn.relu(y), name, width, stride, train)
            features[f"stage{i}"] = x
        y = self.batch_norm(train, name="final_bn")(x)
        last, x = f"stage{len(self.blocks)}", nn.relu(y)
        before[last] = y
        embedding = x.mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        return Outputs(logits.astype(jnp.float32), features, embedding, before, {last: x})

    def _block(
        self, x: Array, active: Array, name: str, width: int, stride: int, train: bool
    ) -> Array:
        y = self.conv(width, 3, stride, name=f"{name}_conv1")(active)
        y = nn.relu(self.batch_norm(train, name=f"{name}_bn2")(y))
        y = dropout(y, self.dropout, train, f"{name}_dropout")
        y = self.conv(width, 3, name=f"{name}_conv2")(y)
        if stride != 1 or x.shape[-1] != width:
            x = self.conv(width, 1, stride, name=f"{name}_shortcut")(active)
        return x + y

    def torch_names(self) -> tuple[Naming, ...]:
        """RepDistiller's names."""
        return (
            renaming(
                (r"^stem$", "conv1"),
                (r"^stage(\d+)_block(\d+)_", r"block\1.layer.\2."),
                (r"shortcut$", "convShortcut"),
                (r"^final_bn$", "bn1"),
                (r"^classifier$", "fc"),
            ),
        )

    def scaled(self, width: float, depth: float) -> "WideResNet":
        """The stem and all stages narrower, each stage shorter."""
        return self.clone(
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
        )


def _wrn(layers: int, widening: int) -> WideResNet:
    n = (layers - 4) // 6
    widths = (16, 16 * widening, 32 * widening, 64 * widening)
    return WideResNet(blocks=(n, n, n), widths=widths)


WIDE_RESNETS: dict[str, WideResNet] = {
    "wrn_16_1": _wrn(16, 1),
    "wrn_16_2": _wrn(16, 2),
    "wrn_40_1": _wrn(40, 1),
    "wrn_40_2": _wrn(40, 2),
}
"""Those of RepDistiller: layers, and how many times wider than the thinnest."""
