"""The charts of a page: curves, reliability, intervals, the trade-off of size and accuracy.

Only our own words are drawn: a name that comes from outside belongs into HTML, where it is
escaped.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kdjax.experiment import ASSISTANTS
from kdjax.report.history import Series, thin
from kdjax.report.job import Bin, Evaluation
from kdjax.report.svg import COLOURS, figure, inline
from kdjax.report.words import NAMES, SPACE, known

DASHES: dict[str, Any] = {
    "teacher": "-",
    **dict.fromkeys(ASSISTANTS[::2], (0, (1.2, 1.4))),
    **dict.fromkeys(ASSISTANTS[1::2], (0, (6, 2, 1.2, 2))),
    "baseline": (0, (4, 2)),
    "student": "-",
}
WIDTHS = {"teacher": 1.2, **dict.fromkeys(ASSISTANTS, 1.4), "baseline": 1.4, "student": 1.9}

TERM_DASHES: Sequence[Any] = ("-", (0, (4, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)))
"""Of the terms of one network, in turn."""

NUMBER = 0.1
"""Inches that the number of a curve takes."""
LOGARITHMIC = 100.0
"""Ratio of largest to smallest value from which a quantity is shown on a logarithmic axis."""


class Line(NamedTuple):
    """One network's curve."""

    role: str
    series: Series
    borders: Sequence[float] = ()
    """Epochs at which its phases began."""


class Point(NamedTuple):
    """A network in the trade-off of size and accuracy; `mark` is its number in the table."""

    role: str
    mark: str
    parameters: float
    top1: float


def curves(lines: Sequence[Line], *, key: str, share: bool = False, linear: bool = False) -> Markup:
    """Curves over epochs; where points were averaged, their range is shaded.

    `share` labels the axis in percent; `linear` forbids a logarithmic axis. `key` is unique on the
    page: it keeps the names inside the drawings apart.
    """
    with figure(key) as drawing:
        axes = drawing.add_subplot()
        for line in lines:
            _draw(axes, line)
            _mark_phases(axes, line)
        if not linear:
            _perhaps_logarithmic(axes, lines)
        _over_epochs(axes, _as_percent if share else _briefly)
        return inline(drawing)


def pulls(lines: Sequence[Line], *, key: str) -> Markup:
    """Curves of one network over epochs, each dashed in its own way and with its number at the end.

    Numbers, since the names of terms come from outside.
    """
    with figure(key, right=0.2 + NUMBER * len(lines)) as drawing:
        axes = drawing.add_subplot()
        for i, (role, series, _) in enumerate(lines):
            dash, colour = TERM_DASHES[i % len(TERM_DASHES)], COLOURS[role]
            marker = "o" if len(series.value) < 2 else ""
            axes.plot(*series, color=colour, linestyle=dash, lw=1.6, marker=marker, markersize=4)
            last = (series.epoch[-1], series.value[-1])
            if np.isfinite(last[1]):
                off = (4 + 72 * NUMBER * i, -3)  # side by side: ends that meet stay readable
                axes.annotate(
                    str(i + 1), last, off, textcoords="offset points", color=COLOURS["ink"]
                )
        _mark_phases(axes, lines[0])
        _perhaps_logarithmic(axes, lines)
        _over_epochs(axes, _briefly)
        return inline(drawing)


def reliability(bins: Sequence[Bin], role: str, *, key: str) -> Markup:
    """Accuracy against confidence, and below it how many answers fall into each bin."""
    filled = [
        (b.confidence, b.accuracy, b.count)
        for b in bins
        if b.count > 0 and known(b.confidence) and known(b.accuracy)
    ]
    where, accuracy, count = np.array(filled, float).reshape(-1, 3).T
    with figure(key, 3.2, left=0.62) as drawing:
        top, bottom = drawing.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        drawing.align_ylabels()
        top.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (2, 2)))
        top.vlines(where, where, accuracy, color=COLOURS[role], alpha=0.45)
        top.plot(where, accuracy, "o-", color=COLOURS[role], markersize=3.5)
        top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        width = 0.8 / max(len(bins), 1)
        bottom.bar(where, count, width, color=COLOURS[role], alpha=0.6)
        bottom.set(xlabel="confidence", ylabel="images")
        bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        bottom.yaxis.set_major_formatter(FuncFormatter(_briefly))
        for axis in (top.yaxis, bottom.xaxis):
            axis.set_major_formatter(FuncFormatter(_as_percent))
        return inline(drawing)


def intervals(evaluations: Sequence[tuple[str, Evaluation]], *, key: str) -> Markup:
    """One row a network: its accuracy and the 95 % interval around it."""
    with figure(key, 0.38 + 0.36 * len(evaluations), left=1.15, bottom=0.28) as drawing:
        axes = drawing.add_subplot()
        for row, (role, evaluation) in enumerate(evaluations):
            colour = COLOURS[role]
            if evaluation.top1_interval is not None:
                axes.plot(evaluation.top1_interval, (row, row), color=colour, alpha=0.5, lw=5)
            axes.plot(np.array([evaluation.top1], float), [row], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(evaluations)), [NAMES[role] for role, _ in evaluations])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], labelsize=8.5)
        axes.set_ylim(len(evaluations) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(_as_percent))
        axes.margins(x=0.08)
        return inline(drawing)


def trade_off(points: Sequence[Point], *, key: str) -> Markup:
    """Accuracy against parameters, each point with its number."""
    shapes = {"teacher": "s", **dict.fromkeys(ASSISTANTS, "^"), "baseline": "D", "student": "o"}
    with figure(key, 2.6, left=0.62) as drawing:
        axes = drawing.add_subplot()
        for point in points:
            at = (point.parameters, point.top1)
            axes.plot(*at, shapes[point.role], color=COLOURS[point.role], markersize=6, alpha=0.85)
            off = (5, -9) if point.role == "baseline" else (5, 4)
            axes.annotate(point.mark, at, off, textcoords="offset points", color=COLOURS["ink"])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_briefly))
        axes.yaxis.set_major_formatter(FuncFormatter(_as_percent))
        axes.set(xlabel="parameters", ylabel="top-1 accuracy")
        axes.margins(0.1)
        return inline(drawing)


def _draw(axes: Axes, line: Line) -> None:
    curve, colour = thin(line.series), COLOURS[line.role]
    if len(curve.mean) < len(line.series.value):
        axes.fill_between(curve.epoch, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if np.isfinite(curve.mean).sum() < 2 else ""
    axes.plot(
        curve.epoch,
        curve.mean,
        color=colour,
        linestyle=DASHES[line.role],
        linewidth=WIDTHS[line.role],
        marker=marker,
        markersize=4,
    )


def _mark_phases(axes: Axes, line: Line) -> None:
    for epoch in line.borders:
        axes.axvline(epoch, color=COLOURS[line.role], linewidth=0.8, linestyle=(0, (1, 2)))


def _perhaps_logarithmic(axes: Axes, lines: Sequence[Line]) -> None:
    if _spread([line.series for line in lines]) > LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())


def _over_epochs(axes: Axes, label: Callable[[float, int | None], str]) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(label))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    axes.margins(x=0.01)


def _spread(series: Sequence[Series]) -> float:
    """Largest over smallest finite value; 0 where that is no use."""
    values = np.concatenate([s.value for s in series]) if series else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.max() / values.min()) if values.size and values.min() > 0 else 0.0


def _as_percent(share: float, _: int | None = None) -> str:
    return f"{round(100 * share, 6):g}{SPACE}%"


def _briefly(value: float, _: int | None = None) -> str:
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{SPACE}{prefix}"
    return f"{round(value, 10):g}"
