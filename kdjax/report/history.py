"""What a run logged, as curves: read from `metrics.jsonl`, thinned to what a page can show."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

POINTS = 240
"""Points of a curve on the page: about one a pixel."""


class Series(NamedTuple):
    """One logged quantity over training, as it was logged: not everywhere finite."""

    epoch: Float[np.ndarray, " n"]
    value: Float[np.ndarray, " n"]

    @property
    def last(self) -> float | None:
        """The last finite value."""
        finite = self.value[np.isfinite(self.value)]
        return float(finite[-1]) if finite.size else None


class Curve(NamedTuple):
    """A thinned series: the mean of each bucket and the range it covers."""

    epoch: Float[np.ndarray, " n"]
    mean: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


class History(NamedTuple):
    """`train["loss"]`, `train["terms.soft_target"]`, `validation["raw"]["top1"]`, …"""

    train: Mapping[str, Series]
    validation: Mapping[str, Mapping[str, Series]]
    pulls: Mapping[str, Series] = {}
    """By term, the norm of its weighted gradient on the network."""
    warnings: Sequence[str] = ()
    """Each once, in the order in which they were logged."""
    borders: Sequence[float] = ()
    """Epochs at which phases began, but for the first."""


def read_history(path: Path) -> History:
    """All curves of a log; no curves where there is no log.

    A line that is damaged is left out; of two lines about one step the later one counts.
    """
    train: dict[int, dict[str, float]] = {}
    validation: dict[str, dict[int, dict[str, float]]] = {}
    gradients: dict[int, dict[str, float]] = {}
    warnings: list[str] = []
    borders: dict[int, float] = {}
    for line in _lines(path):
        if line.get("kind") == "train":
            train[line["step"]] = _flat(line)
        elif line.get("kind") == "validation":
            validation.setdefault(str(line.get("weights", "raw")), {})[line["step"]] = _flat(line)
        elif line.get("kind") == "gradients":
            gradients[line["step"]] = _flat(line)
        elif line.get("kind") == "warning":
            warnings.append(str(line.get("text", "")))
        elif line.get("kind") == "phase" and line.get("number") != 1:
            borders[line["step"]] = _flat(line).get("epoch", float(line["step"]))
    return History(
        _columns(train),
        {name: _columns(rows) for name, rows in validation.items()},
        _columns({step: _pulls(norms, train.get(step, {})) for step, norms in gradients.items()}),
        list(dict.fromkeys(filter(None, warnings))),
        sorted(borders.values()),
    )


def thin(series: Series, points: int = POINTS) -> Curve:
    """At most `points` buckets of neighbouring values, each with its mean and its range."""
    count = len(series.value)
    starts = np.unique(np.linspace(0, count, min(points, count), endpoint=False).astype(int))
    if not starts.size:
        return Curve(series.epoch, series.value, series.value, series.value)
    finite = np.isfinite(series.value)
    number = np.add.reduceat(finite.astype(float), starts)
    total = np.add.reduceat(np.where(finite, series.value, 0.0), starts)
    low = np.minimum.reduceat(np.where(finite, series.value, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, series.value, -np.inf), starts)
    ends = np.append(starts[1:], count) - 1
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    low, high = (np.where(number > 0, bound, np.nan) for bound in (low, high))
    return Curve((series.epoch[starts] + series.epoch[ends]) / 2, mean, low, high)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue  # a crash cut it short
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def _flat(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a line; null is no number."""
    flat: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[prefix + name] = float(value)
    return flat


def _pulls(norms: Mapping[str, float], line: Mapping[str, float]) -> dict[str, float]:
    """Norms are logged without weights, which stand in the line of training of the same step."""
    pulls = {name: norms[name] for name in ("step", "epoch") if name in norms}
    for name, weight in line.items():
        kind, _, term = name.partition(".")
        if kind == "weights" and f"student.{term}" in norms:
            pulls[term] = weight * norms[f"student.{term}"]
    return pulls


def _columns(rows: Mapping[int, Mapping[str, float]]) -> dict[str, Series]:
    ordered = [rows[step] for step in sorted(rows)]
    names = dict.fromkeys(name for row in ordered for name in row)
    return {name: _series(name, ordered) for name in names if name not in ("step", "epoch")}


def _series(name: str, rows: Sequence[Mapping[str, float]]) -> Series:
    pairs = [(row.get("epoch", row["step"]), row[name]) for row in rows if name in row]
    epoch, value = np.array(pairs, float).T
    return Series(epoch, value)
