"""What the loss thinks of a network's weights, for choosing among its channels."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from kdjax.models import Model
from kdjax.types import Variables


def loss_gradients(
    model: Model, variables: Variables, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Any:
    """The mean gradient of the cross-entropy by the parameters, over batches of images and labels.

    In evaluation mode: running statistics are read, nothing changes. ValueError without a batch,
    and for labels that are no classes.
    """

    @jax.jit
    def gradient(params: Any, images: Array, labels: Array) -> Any:
        def loss(params: Any) -> Array:
            outputs: Any = model.apply({**variables, "params": params}, images, train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
            return jnp.mean(losses)

        return jax.grad(loss)(params)

    found = []
    for images, labels in batches:
        _check_labels(labels, model.num_classes)
        found.append(jax.device_get(gradient(variables["params"], images, labels)))
    if not found:
        raise ValueError("student.derive.recalibrate: taylor needs at least one batch.")
    return jax.tree.map(lambda *each: np.mean(each, axis=0), *found)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    """-1 would be taken for the last class, and one that is too large for no class at all."""
    for label in labels[(labels < 0) | (labels >= classes)][:1]:
        raise ValueError(
            f"student.derive.importance: taylor reads labels, and {label} is none of {classes} "
            "classes; choose l1 or bn_scale, or other data."
        )
