"""Metrics as sums that add up over batches and devices, and the numbers they become."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.experiment import Measure
from kdjax.experiment.importing import written_by_others
from kdjax.types import Batch, Outputs

BINS = 15
"""Equal-width confidence bins of the calibration error (Guo et al., 2017, arXiv:1706.04599)."""

Sums = dict[str, Any]
"""Arrays by name; under `metrics`, those that the experiment chose."""


def chosen_sums(
    metrics: Mapping[str, Measure], student: Outputs, teacher: Outputs | None, batch: Batch
) -> dict[str, Array]:
    """What one batch contributes to the metrics that an experiment chose."""

    def counted(seen: Array, numbers: Array) -> Array:
        return jnp.where(seen, numbers, 0.0)  # not a product: padding may have no finite number

    return {
        name: jax.vmap(counted)(batch.mask, metric(student, teacher, batch)).sum(axis=0)
        for name, metric in metrics.items()
    }


def sums(logits: Float[Array, "b c"], teacher: Float[Array, "b c"] | None, batch: Batch) -> Sums:
    """What one batch contributes; padding contributes nothing."""
    mask = batch.mask.astype(jnp.float32)
    log_p = jax.nn.log_softmax(logits)
    answer = logits.argmax(axis=-1)
    correct = (answer == batch.label) * mask
    _, top = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    confidence = jnp.exp(log_p.max(axis=-1))
    bins = jnp.clip((confidence * BINS).astype(jnp.int32), 0, BINS - 1)
    member = jax.nn.one_hot(bins, BINS) * mask[:, None]
    picked = jnp.take_along_axis(log_p, batch.label[:, None], axis=-1)[:, 0]
    result = {
        "count": mask.sum(),
        "top1": correct.sum(),
        "top5": ((top == batch.label[:, None]).any(axis=-1) * mask).sum(),
        "nll": -jnp.where(batch.mask, picked, 0.0).sum(),
        "bin_count": member.sum(axis=0),
        "bin_correct": (member * correct[:, None]).sum(axis=0),
        "bin_confidence": (member * confidence[:, None]).sum(axis=0),
    }
    if teacher is not None:
        log_t = jax.nn.log_softmax(teacher)
        kl = jnp.sum(jnp.exp(log_t) * (log_t - log_p), axis=-1)
        result["agreement"] = ((answer == teacher.argmax(axis=-1)) * mask).sum()
        result["teacher_kl"] = jnp.where(batch.mask, kl, 0.0).sum()
    return result


def summarise(total: Mapping[str, Any], chosen: Mapping[str, Measure]) -> dict[str, Any]:
    """From sums to metrics.

    `top1`, `top5`, `agreement` (same answer as the teacher): shares. `nll`, `teacher_kl`
    (`KL(teacher || student)`): nats per example. `ece`: the mean gap between confidence and
    accuracy over bins, weighted by their size. `top1_interval`: 95 % Wilson score interval.
    `metrics`, if there are any: those that were chosen.
    """
    count = float(total["count"])
    means = ("top1", "top5", "nll", "agreement", "teacher_kl")
    metrics = {name: float(total[name]) / count for name in means if name in total}
    size, correct, confidence = (
        np.asarray(total[f"bin_{name}"], float) for name in ("count", "correct", "confidence")
    )
    occupied = np.maximum(size, 1)
    own = {
        name: _value(metric, np.asarray(total["metrics"][name] / count))
        for name, metric in chosen.items()
    }
    return {
        "count": round(count),
        **metrics,
        "top1_interval": wilson_interval(metrics["top1"], count),
        "ece": float(np.abs(confidence - correct).sum() / count),
        "calibration": [
            {"count": round(n), "confidence": c, "accuracy": a}
            for n, c, a in zip(
                size.tolist(),
                (confidence / occupied).tolist(),
                (correct / occupied).tolist(),
                strict=True,
            )
        ],
        **({"metrics": own} if own else {}),
    }


def _value(metric: Measure, mean: Float[np.ndarray, "..."]) -> float:
    with written_by_others(type(metric)):  # such as a share of examples that a split has none of
        return float(metric.value(mean))


def wilson_interval(share: float, count: float, z: float = 1.959964) -> list[float]:
    """The Wilson score interval of a proportion (Wilson, 1927); 95 % by default."""
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return [max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)]
