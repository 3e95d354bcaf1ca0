"""Batch norm statistics measured anew, for weights that were not trained under the old ones.

Must not know where the weights come from, nor which layers normalise.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8

from kdjax.models import Model
from kdjax.models.base import MOMENTUM
from kdjax.types import Variables

Images = UInt8[np.ndarray, "n H W C"] | UInt8[Array, "n H W C"]


def recalibrate(model: Model, variables: Variables, batches: Iterable[Images]) -> dict[str, Any]:
    """The variables with the exact statistics of these images, seen in training mode.

    Over batches b of n_b images: `mean = avg_b(mean_b)` and `var = avg_b(var_b) + avg_b((mean_b -
    mean)²)`, weighted by n_b: what is within the batches and what is between them. Batches of one
    size compile once. Without batch norm, or without a batch, nothing changes.
    """
    if "batch_stats" not in variables:
        return dict(variables)
    local = model.clone(sync_batch_norm=False)
    # From zero, one update leaves (1 - momentum) times the statistics of the batch.
    zero = jax.tree.map(np.zeros_like, variables["batch_stats"])
    fresh = jax.device_put({**variables, "batch_stats": zero})

    @jax.jit
    def measure(fresh: Variables, images: Array) -> Any:
        _, updated = local.apply(fresh, images, train=True, mutable=["batch_stats"])
        return jax.tree.map(lambda x: x / (1 - MOMENTUM), updated["batch_stats"])

    sizes, measured = [], []
    for images in batches:
        sizes.append(len(images))
        measured.append(jax.device_get(measure(fresh, images)))
    if not measured:
        return dict(variables)
    return {**variables, "batch_stats": _pool(measured, np.array(sizes))}


def _pool(batches: list[Mapping[str, Any]], sizes: np.ndarray) -> dict[str, Any]:
    """The statistics of one layer, or of the layers within it."""
    if any(isinstance(inner, Mapping) for inner in batches[0].values()):
        return {layer: _pool([b[layer] for b in batches], sizes) for layer in batches[0]}
    means, variances = (
        np.stack([batch[name] for batch in batches]).astype(np.float64) for name in ("mean", "var")
    )
    mean = np.average(means, axis=0, weights=sizes)
    variance = np.average(variances + np.square(means - mean), axis=0, weights=sizes)
    return {"mean": mean.astype(np.float32), "var": variance.astype(np.float32)}
