"""The curves and diagrams of a job's page, each with a caption and the same in words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from kdjax.report import figures
from kdjax.report.figures import Line
from kdjax.report.history import Series
from kdjax.report.job import ROLES, JobData
from kdjax.report.tables import roles
from kdjax.report.words import NAMES, heading, interval, known, number, percent, whole


class Panel(NamedTuple):
    """A figure with its caption; `alt` says in words what it shows."""

    title: str
    svg: Markup
    alt: str
    note: str = ""


class Chapter(NamedTuple):
    """Panels that belong together."""

    name: str
    panels: Sequence[Panel]


def chapters(job: JobData, *, key: str) -> list[Chapter]:
    """Curves of everything that was logged."""
    validation = _validation_panels(job, key)
    names = _train_names(job)
    terms = [name for name in names if name.startswith("terms.")]
    moving = [name for name in names if name.startswith("weights.") and _moves(job, name)]
    shown = [
        Chapter("Validation", validation),
        Chapter(
            "Objective",
            [
                *_train_panels(job, key, ["loss"]),
                *_train_panels(job, key, terms),
                *_train_panels(job, key, moving, linear=True),
                *_pull_panels(job, key),
            ],
        ),
        Chapter(
            "Optimisation",
            [
                *_train_panels(job, key, ["learning_rate"], linear=True),
                *_train_panels(job, key, ["gradient_norm"]),
                *_train_panels(job, key, ["images_per_second"], linear=True),
            ],
        ),
    ]
    return [chapter for chapter in shown if chapter.panels]


def reliability(job: JobData, *, key: str) -> list[Panel]:
    """One diagram a network."""
    panels = []
    for role in ROLES:
        evaluation = job.summary.models[role].latest if role in job.summary.models else None
        if evaluation is None or not any(b.count > 0 for b in evaluation.calibration):
            continue
        error = percent(evaluation.ece, evaluation.count)
        svg = figures.reliability(evaluation.calibration, role, key=f"{key}-reliability-{role}")
        alt = (
            f"Reliability diagram of the {NAMES[role].lower()}: accuracy against confidence. "
            f"The mean gap between them is {error}."
        )
        panels.append(Panel(NAMES[role], svg, alt, f"ECE {error}"))
    return panels


def intervals(job: JobData, *, key: str) -> Panel | None:
    """Accuracy on the test split, with how sure it is."""
    measured = [
        (role, job.summary.models[role].latest)
        for role in roles(job)
        if known(job.summary.models[role].latest.top1)
    ]
    if not measured:
        return None
    rows = [f"{NAMES[role]} {percent(e.top1, e.count)} ({interval(e)})" for role, e in measured]
    svg = figures.intervals(measured, key=f"{key}-intervals")
    alt = f"Top-1 accuracy and 95 % intervals: {'; '.join(rows)}."
    return Panel("Top-1 accuracy with 95 % interval", svg, alt)


def trade_off(jobs: Sequence[JobData]) -> Panel | None:
    """All networks of several jobs by accuracy and size."""
    points = [
        figures.Point(role, str(i), model.parameters, model.latest.top1)
        for i, job in enumerate(jobs, start=1)
        for role in roles(job)
        for model in [job.summary.models[role]]
        if known(model.latest.top1) and known(model.parameters) and model.parameters > 0
    ]
    if not points:
        return None
    alt = "Accuracy against the number of parameters; the table gives the same numbers."
    svg = figures.trade_off(points, key="trade-off")
    note = "Squares: teachers. Triangles: assistants. Diamonds: students alone. Circles: distilled."
    return Panel("Accuracy and size", svg, alt, f"{note} Numbers: the jobs.")


def _validation_panels(job: JobData, key: str) -> list[Panel]:
    shown = {
        "top1": ("Top-1 accuracy", True),
        "nll": ("Negative log-likelihood", False),
        "ece": ("Calibration error (ECE)", True),
        "agreement": ("Same answer as the teacher", True),
        **{f"metrics.{name}": (heading(name), False) for name in _chosen(job)},
    }
    panels = []
    for name, (title, share) in shown.items():
        lines = {
            role: [weights[name] for weights in history.validation.values() if name in weights]
            for role, history in job.histories.items()
        }
        flat = [
            Line(role, series, job.histories[role].borders)
            for role in ROLES
            for series in lines.get(role, [])
        ]
        if any(line.series.last is not None for line in flat):
            svg = figures.curves(flat, key=f"{key}-validation-{name}", share=share, linear=share)
            panels.append(_panel(title, svg, flat, share))
    return panels


def _chosen(job: JobData) -> list[str]:
    """The metrics that the experiment chose."""
    logged = dict.fromkeys(
        name
        for history in job.histories.values()
        for weights in history.validation.values()
        for name in weights
    )
    return [name.removeprefix("metrics.") for name in logged if name.startswith("metrics.")]


def _train_panels(
    job: JobData, key: str, names: Sequence[str], *, linear: bool = False
) -> list[Panel]:
    panels = []
    for name in names:
        lines = [
            Line(role, job.histories[role].train[name], job.histories[role].borders)
            for role in ROLES
            if role in job.histories and name in job.histories[role].train
        ]
        if any(line.series.last is not None for line in lines):
            svg = figures.curves(lines, key=f"{key}-{name}", linear=linear)
            panels.append(_panel(_title(name), svg, lines, share=False))
    return panels


def _pull_panels(job: JobData, key: str) -> list[Panel]:
    """How hard the terms of each network that has several pull at it."""
    panels = []
    for role in ROLES:
        pulls = job.histories[role].pulls if role in job.histories else {}
        felt = {term: series for term, series in pulls.items() if series.last is not None}
        if len(felt) < 2:
            continue
        title = f"How hard each term pulls at the {NAMES[role].lower()}"
        ends = [
            f"{i}: {term.replace('_', ' ')} {number(series.last)}"
            for i, (term, series) in enumerate(felt.items(), start=1)
        ]
        note = f"Norms of the weighted gradients; at the end: {', '.join(ends)}."
        borders = job.histories[role].borders
        lines = [Line(role, series, borders) for series in felt.values()]
        svg = figures.pulls(lines, key=f"{key}-pulls-{role}")
        panels.append(Panel(title, svg, f"{title} over the epochs. {note}", note))
    return panels


def _panel(title: str, svg: Markup, lines: Sequence[Line], share: bool) -> Panel:
    ends = [
        f"{NAMES[line.role].lower()} {percent(last) if share else number(last)}"
        for line in lines
        if (last := line.series.last) is not None
    ]
    lost = sum(int((~np.isfinite(line.series.value)).sum()) for line in lines)
    gaps = f" {whole(lost)} logged values are not finite." if lost else ""
    note = f"At the end: {', '.join(ends)}."
    phases = " Dotted: where phases begin." if any(line.borders for line in lines) else ""
    return Panel(title, svg, f"{title} over the epochs. {note}", note + gaps + phases)


def _train_names(job: JobData) -> list[str]:
    return list(
        dict.fromkeys(
            name for role in ROLES if role in job.histories for name in job.histories[role].train
        )
    )


def _moves(job: JobData, name: str) -> bool:
    """Whether a weight changes during some run."""
    return any(
        bool(np.ptp(values[np.isfinite(values)])) if np.isfinite(values).any() else False
        for history in job.histories.values()
        for values in [history.train.get(name, Series(np.empty(0), np.empty(0))).value]
    )


def _title(name: str) -> str:
    titles = {"loss": "Loss: the weighted sum", "images_per_second": "Images per second"}
    kind, _, term = name.partition(".")
    prefix = {"terms": "", "weights": "Weight of "}.get(kind, "")
    words = (term or kind).replace("_", " ")
    return titles.get(name, prefix + words if prefix else heading(words))
