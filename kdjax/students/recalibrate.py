"""Batch norm statistics measured anew, for weights that were not trained under the old ones.

Must not know where the weights come from, nor which layers normalise.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8

from kdjax.models import Model, learn
from kdjax.types import Variables

Images = UInt8[np.ndarray, "n H W C"] | UInt8[Array, "n H W C"]


def recalibrate(model: Model, variables: Variables, batches: Iterable[Images]) -> dict[str, Any]:
    """The variables with the exact statistics of these images, seen in training mode.

    Over batches b of n_b images: `mean = avg_b(mean_b)` and `var = avg_b(var_b) + avg_b((mean_b -
    mean)²)`, weighted by n_b: what is within the batches and what is between them. Batches of one
    size compile once. Nothing is dropped, as where statistics are used. Without batch norm, or
    without a batch, nothing changes.
    """
    if "batch_stats" not in variables:
        return dict(variables)
    old = variables["batch_stats"]
    local = model.clone(sync_batch_norm=False)

    @jax.jit
    def seen(stats: Any, images: Array) -> Any:
        _, updated = learn(local, {**variables, "batch_stats": stats}, images, None)
        return updated["batch_stats"]

    sizes, measured, kept = [], [], None
    zero, high = (jax.tree.map(partial(np.full_like, fill_value=c), old) for c in (0.0, HIGH))
    for images in batches:
        from_zero = jax.device_get(seen(zero, images))
        if kept is None:
            kept = jax.tree.map(_momentum, from_zero, jax.device_get(seen(high, images)))
        sizes.append(len(images))
        measured.append(jax.tree.map(lambda x, m: x / (1 - m), from_zero, kept))
    if not measured:
        return dict(variables)
    return {**variables, "batch_stats": _pool(measured, np.array(sizes))}


HIGH = 2.0**20
"""A running statistic that no batch comes near to."""


def _momentum(from_zero: np.ndarray, from_high: np.ndarray) -> float:
    """The share of running statistics that outlives an update, `m` of `m old + (1 - m) new`.

    Layers differ, and those of others do not say: two updates by one batch do.
    """
    return round(float(np.median(from_high - from_zero)) / HIGH, 6)


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
