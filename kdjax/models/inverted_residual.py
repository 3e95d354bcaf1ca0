"""The block MobileNetV2, MobileNetV3 and EfficientNet are built of."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array

from kdjax.models.base import VisionModel
from kdjax.models.dropout import drop_path

Activation = Callable[[Array], Array]


class Block(NamedTuple):
    """The inverted residual (Sandler et al., 2018, arXiv:1801.04381).

    A 1x1 convolution expands, a depthwise one filters, squeeze-and-excitation (Hu et al., 2018,
    arXiv:1709.01507) weighs the channels, and a 1x1 convolution without activation projects.
    """

    width: int
    """Channels it writes."""
    expanded: int
    """Channels inside; 0: those it reads, with no expansion."""
    stride: int
    """Of the depthwise convolution."""
    activation: Activation
    """After the expansion and the depthwise convolution."""
    kernel: int = 3
    """Size of the depthwise convolution."""
    squeezed: int = 0
    """Channels between squeezing and exciting; 0: neither."""
    squeezed_activation: Activation = nn.relu
    """After squeezing."""
    gate: Activation = nn.sigmoid
    """After exciting: what the channels are multiplied by."""
    skipped: float = 0.0
    """How often an example goes without what the block adds to its shortcut, in training."""

    def __call__(self, model: VisionModel, x: Array, name: str, train: bool) -> Array:
        """Apply it inside `model`, with layers `NAME_expand`, `NAME_expand_bn`, …"""
        y, inner = x, self.expanded or x.shape[-1]
        if self.expanded:
            y = model.conv(inner, 1, name=f"{name}_expand")(y)
            y = self.activation(model.batch_norm(train, name=f"{name}_expand_bn")(y))
        depthwise = model.conv(
            inner, self.kernel, self.stride, feature_group_count=inner, name=f"{name}_depthwise"
        )
        y = depthwise(y)
        y = self.activation(model.batch_norm(train, name=f"{name}_depthwise_bn")(y))
        if self.squeezed:
            y = y * self._weights(model, y, name)
        y = model.conv(self.width, 1, name=f"{name}_project")(y)
        y = model.batch_norm(train, name=f"{name}_project_bn")(y)
        if self.stride != 1 or x.shape[-1] != self.width:
            return y
        return x + drop_path(y, self.skipped, train, f"{name}_path")

    def _weights(self, model: VisionModel, x: Array, name: str) -> Array:
        y = x.mean(axis=(1, 2), keepdims=True)
        y = model.conv(self.squeezed, 1, use_bias=True, name=f"{name}_squeeze")(y)
        y = self.squeezed_activation(y)
        return self.gate(model.conv(x.shape[-1], 1, use_bias=True, name=f"{name}_excite")(y))

    @property
    def parts(self) -> tuple[str, ...]:
        """What it consists of, in order."""
        there = {"expand": self.expanded, "depthwise": True, "squeeze": self.squeezed}
        return (*(part for part, size in there.items() if size), "project")

    def torchvision_names(self, ours: str, theirs: str) -> dict[str, str]:
        """From our layers `OURS_expand`, … to torchvision's, which numbers the parts: `THEIRS.0.0`.

        That is how MobileNetV3 and EfficientNet have it; MobileNetV2 differs at its end.
        """
        names = {}
        for k, part in enumerate(self.parts):
            if part == "squeeze":
                names[f"{ours}_squeeze"] = f"{theirs}.{k}.fc1"
                names[f"{ours}_excite"] = f"{theirs}.{k}.fc2"
            else:
                names[f"{ours}_{part}"] = f"{theirs}.{k}.0"
                names[f"{ours}_{part}_bn"] = f"{theirs}.{k}.1"
        return names
