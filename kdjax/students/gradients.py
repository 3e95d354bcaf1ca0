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

    In evaluation mode: running statistics are read, nothing changes. ValueError without a batch.
    """

    @jax.jit
    def gradient(params: Any, images: Array, labels: Array) -> Any:
        def loss(params: Any) -> Array:
            outputs: Any = model.apply({**variables, "params": params}, images, train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
            return jnp.mean(losses)

        return jax.grad(loss)(params)

    found = [jax.device_get(gradient(variables["params"], x, y)) for x, y in batches]
    if not found:
        raise ValueError("student.derive.recalibrate: taylor needs at least one batch.")
    return jax.tree.map(lambda *each: np.mean(each, axis=0), *found)
