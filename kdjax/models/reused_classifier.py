"""A student that answers with its teacher's classifier (Chen et al., 2022, arXiv:2203.14001)."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import VisionModel, adaptive_pool
from kdjax.models.network import Network
from kdjax.models.small_cnn import SmallCNN
from kdjax.models.stages import last_map, pooled_stage
from kdjax.models.summary import Shape, abstract_variables, output_shapes
from kdjax.types import Outputs, Variables

Layer = Mapping[str, Any]
"""`kernel` and `bias` of a dense layer."""


class ReusedClassifier(VisionModel):
    """A backbone, a projector to the width of a teacher's embedding, and that teacher's classifier.

    The projector is 1x1 convolution, 3x3 convolution, 1x1 convolution, each with batch norm and
    ReLU, the first two with `width / factor` channels; the classifier reads the mean of what comes
    out. Its kernel and bias lie in the collection `frozen`, which no training changes; they are
    zero until they are copied. The backbone's own classifier is left out.

    The projector reads the map that the backbone's embedding is the mean of. Where layers lie
    between the last stage and the embedding, as in `SmallCNN` or MobileNets, it reads the embedding
    itself, a map of one pixel, so that no layer is left without use. (The authors' code reads the
    last stage there, and keeps such layers untrained.)

    Classes, `mean`, `std`, `dtype` and `sync_batch_norm` are those of this network, whatever the
    backbone's fields say. Features are the backbone's, and `projected`, what the projector makes of
    its last map.
    """

    backbone: Network = SmallCNN()
    """The network without its classifier."""
    width: int = 64
    """Channels that the projector ends with: those of the teacher's embedding."""
    size: tuple[int, ...] = ()
    """Height and width of the teacher's last map: a larger one of the backbone is average-pooled
    to it before the projector. Empty: never."""
    factor: int = 2
    """How many times narrower the projector is inside."""
    relu: bool = True
    """The projector ends in a ReLU; off where the teacher's last map does not."""

    def check(self) -> None:
        """A size has two numbers; the backbone obeys its own rules."""
        if len(self.size) not in (0, 2):
            raise ValueError(f"size: {self.size!r} cannot work; give height and width, or nothing.")
        if self.factor > self.width:
            raise ValueError(
                f"factor: {self.factor} cannot work; it must be at most the {self.width} of width."
            )
        self.network().check()

    def network(self) -> Network:
        """The backbone as it computes: with the fields that all networks have from here."""
        return self.backbone.clone(**{name: getattr(self, name) for name in COMMON})

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Logits are the teacher's classifier's."""
        self.check()
        network = self.network().clone(parent=self, name="network")
        with nn.intercept_methods(_leave_out_classifier):
            outputs: Outputs = network(images, train)
        before = self._projected(last_map(outputs).astype(self.dtype), train)
        x = nn.relu(before) if self.relu else before
        embedding = x.mean(axis=(1, 2))
        classifier = FrozenDense(self.num_classes, name="classifier")
        rectified = {"projected": before} if self.relu else {}
        return Outputs(
            classifier(embedding).astype(jnp.float32),
            {**outputs.features, "projected": x},
            embedding,
            {**outputs.preactivations, **rectified},
            {"projected": x},
        )

    def _projected(self, x: Array, train: bool) -> Array:
        if self.size:
            height, width = (min(pair) for pair in zip(x.shape[1:3], self.size, strict=True))
            x = adaptive_pool(x, height, width)
        inner = self.width // self.factor
        for i, (channels, kernel) in enumerate(((inner, 1), (inner, 3), (self.width, 1)), start=1):
            x = self.conv(channels, kernel, name=f"projector_conv{i}")(x)
            # E x² - (E x)² loses its digits on maps of one pixel.
            x = self.batch_norm(train, use_fast_variance=False, name=f"projector_bn{i}")(x)
            x = nn.relu(x) if i < 3 else x
        return x

    def scaled(self, width: float, depth: float) -> "ReusedClassifier":
        """The backbone scaled so; the classifier needs all it reads."""
        return self.clone(backbone=self.backbone.scaled(width, depth))


COMMON = ("num_classes", "mean", "std", "dtype", "sync_batch_norm")
"""Fields that every network has."""


class FrozenDense(nn.Module):
    """A dense layer that is copied from elsewhere and never trained, in its input's precision."""

    features: int
    """Numbers it makes of each vector."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`x W + b`."""
        shapes = {"kernel": (x.shape[-1], self.features), "bias": (self.features,)}
        kernel, bias = (
            self.variable("frozen", name, jnp.zeros, shape).value.astype(x.dtype)
            for name, shape in shapes.items()
        )
        return x @ kernel + bias


def _leave_out_classifier(
    call: Callable[..., Any], arguments: Any, fields: Any, context: nn.module.InterceptorContext
) -> Any:
    """Nobody hears what the backbone's own classifier says, so it has no weights."""
    layer = context.module
    if isinstance(layer, nn.Dense) and layer.name == "classifier":
        return jnp.zeros((*arguments[0].shape[:-1], layer.features), arguments[0].dtype)
    return call(*arguments, **fields)


def reusing(network: Network, teacher: VisionModel, shape: Shape, who: str) -> ReusedClassifier:
    """The network with room for the classifier of a teacher of images of `shape`.

    ValueError, which names `who`, if that teacher has none.
    """
    classifier_of(abstract_variables(teacher, shape), who)
    outputs = output_shapes(teacher, shape)
    stage = pooled_stage(outputs)
    return ReusedClassifier(
        backbone=network,
        width=outputs.embedding.shape[-1],
        size=outputs.pooled[stage].shape[1:3] if stage else (),
        relu=stage in outputs.preactivations,
        **{name: getattr(network, name) for name in COMMON},
    )


def classifier_of(teacher: Variables, who: str) -> Layer:
    """A teacher's last layer, which `who` needs. ValueError if it has none."""
    layers = {**teacher.get("frozen", {}), **teacher.get("params", {})}
    classifier = layers.get("classifier", {})
    if not {"kernel", "bias"} <= set(classifier):
        raise ValueError(
            f"{who}: the teacher has no last layer named classifier with kernel and bias, as "
            "nn.Dense makes them, and an Ensemble has several; name it so, or take another teacher."
        )
    return classifier
