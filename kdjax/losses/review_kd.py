"""Knowledge review (Chen et al., 2021, arXiv:2104.09044)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import Tap, require_teacher
from kdjax.losses.conv_norm import ConvNorm
from kdjax.losses.stages import StagesLoss, maps, maps_before_relu
from kdjax.models.base import adaptive_pool
from kdjax.types import Batch, Outputs


class ReviewKD(StagesLoss):
    """`sum_i HCL(out_i, F_t,i)` over the stages and the embedding, which is a map of one pixel.

    The student's maps are fused from deep to shallow, so that a stage of the teacher also teaches
    all deeper ones of the student. With `x_i` the student's map, brought to a common width by a
    1x1 convolution and batch norm, and `r` enlarged to its size:

    - `(a, b) = sigmoid(conv1x1([x_i, r_{i+1}]))`, one value each a pixel;
    - `r_i = a x_i + b r_{i+1}`, brought to the size of the teacher's map by nearest pixels;
    - `out_i = bn(conv3x3(r_i))`, as wide as the teacher's map.

    HCL, hierarchical context: the mean square of the gap, and of the gap pooled to 4, 2 and 1
    pixels a side with weights 1/2, 1/4 and 1/8, over the sum of the weights. A size that a map does
    not exceed is left out, and the next takes its weight.

    `F_t` is the teacher's map before its last ReLU, so `out` ends in none; the embedding is as it
    is. The student's maps are, as in the authors' code:

    - `before_relu="teacher"`: those after the ReLU, for CIFAR-100;
    - `before_relu="both"`: those before it too, for ImageNet.

    Where a network has no preactivation, as at MobileNetV2's linear ends, both are the feature.

    Usual weight: 5, with `Ramp()` as schedule; 8 for ShuffleNetV2, 1 or less for narrow ResNets;
    1, with `Ramp(epochs=1)`, for ResNets on ImageNet.
    """

    width: int = 512
    """Channels that maps are fused in, at most as many as the student's embedding has."""
    before_relu: Literal["teacher", "both"] = "teacher"
    """Whose maps are those before the last ReLU."""
    sync_batch_norm: bool = True
    """Normalise the adapters over the global batch."""

    def check(self) -> None:
        """There is something to fuse in."""
        require("width", self.width, self.width >= 1, "at least 1")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        teacher = require_teacher(self, teacher)
        pairs = [self._maps(student, teacher, tap) for tap in self.taps(student, teacher)]
        pairs.append((_pixel(student.embedding), _pixel(teacher.embedding)))
        width = min(self.width, student.embedding.shape[-1])
        total, fused = jnp.zeros(student.logits.shape[0]), None
        for i, (f_s, f_t) in reversed(list(enumerate(pairs, start=1))):
            x = ConvNorm(width, sync=self.sync_batch_norm, name=f"narrow{i}")(f_s)
            if fused is not None:
                x = self._fuse(x, nearest(fused, *x.shape[1:3]), f"attention{i}")
            fused = nearest(x, *f_t.shape[1:3])
            out = ConvNorm(f_t.shape[-1], 3, self.sync_batch_norm, name=f"out{i}")(fused)
            total += hierarchical_context(out, f_t)
        return total

    def _maps(self, student: Outputs, teacher: Outputs, tap: Tap) -> tuple[Array, Array]:
        before, f_t = maps_before_relu(student, teacher, tap)
        after, _ = maps(student, teacher, tap)
        return (before if self.before_relu == "both" else after), f_t

    def _fuse(self, x: Array, deeper: Array, name: str) -> Array:
        gates = nn.Conv(2, (1, 1), name=name)(jnp.concatenate([x, deeper], axis=-1))
        gates = nn.sigmoid(gates)
        return x * gates[..., :1] + deeper * gates[..., 1:]


def hierarchical_context(
    a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """Mean square of the gap at up to four resolutions, each half as important as the last."""
    gap = a - b
    height, width = gap.shape[1:3]
    scales = [gap] + [
        adaptive_pool(gap, min(side, height), min(side, width))
        for side in (4, 2, 1)
        if side < max(height, width)
    ]
    weights = jnp.array([0.5**i for i in range(len(scales))])
    squares = jnp.stack([jnp.square(scale).mean(axis=(1, 2, 3)) for scale in scales])
    return jnp.average(squares, axis=0, weights=weights)


def nearest(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b H W c"]:
    """The map with pixel `i` taken from pixel `floor(i · old / new)`, as in PyTorch."""
    rows = jnp.arange(height) * x.shape[1] // height
    columns = jnp.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]


def _pixel(embedding: Array) -> Array:
    return embedding.astype("float32")[:, None, None]
