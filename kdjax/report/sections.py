"""The parts of a job's page below its tables: what was trained, curves, mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from markupsafe import Markup

from kdjax.report import figures, pictures
from kdjax.report.figures import Line
from kdjax.report.history import Series
from kdjax.report.job import ROLES, Disagreement, JobData
from kdjax.report.words import (
    NAMES,
    TIMES,
    known,
    number,
    objective,
    percent,
    phrase,
    scaled,
    whole,
)

CELLS = 12
"""Most classes a confusion matrix is written out for; more become an image."""
PAIRS = 10
"""Rows of the table of confused classes."""
EXAMPLES = 24
"""Most disagreements on a page."""


class Fact(NamedTuple):
    """A name and a value; `code` asks for a fixed-width typeface."""

    name: str
    value: str
    code: bool = False


class Card(NamedTuple):
    """One network's facts."""

    role: str
    facts: Sequence[Fact]


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


class Matrix(NamedTuple):
    """Counts, and each count's share of its row; `image` stands in where there are too many."""

    title: str
    classes: Sequence[str]
    counts: Int[np.ndarray, "c c"]
    roots: Sequence[Sequence[float]]
    image: str
    alt: str
    note: str


class Pair(NamedTuple):
    """Two classes that are taken for each other, and how often by whom."""

    truth: str
    answer: str
    counts: Sequence[int]


class Example(NamedTuple):
    """An image that teacher and student see differently."""

    image: str
    small: bool
    alt: str
    truth: str
    answers: Sequence[tuple[str, str, str, bool]]
    """Role, class, probability, whether it is right."""


def warnings(job: JobData) -> list[tuple[str, str]]:
    """Role and text of all that the runs were warned of."""
    return [
        (role, text)
        for role in ROLES
        if role in job.histories
        for text in job.histories[role].warnings
    ]


def data_facts(job: JobData) -> list[Fact]:
    """What was learnt from."""
    data = job.summary.data
    classes = ", ".join(data.classes[:CELLS]) + (", …" if len(data.classes) > CELLS else "")
    sizes = " · ".join(f"{whole(size)} {split}" for split, size in data.sizes.items())
    facts = [
        Fact("Data set", data.name),
        Fact("Images", f" {TIMES} ".join(map(str, data.shape))),
        Fact("Examples", sizes),
        Fact("Classes", f"{len(data.classes)}: {classes}" if data.classes else ""),
    ]
    return [fact for fact in facts if fact.value]


def cards(job: JobData) -> list[Card]:
    """How each network was trained."""
    return [Card(role, _run_facts(job.runs[role])) for role in ROLES if role in job.runs]


def delivery(job: JobData) -> list[Fact]:
    """How to get the same again, and where it was measured."""
    summary, export = job.summary, job.summary.export
    versions = {"kdjax": summary.kdjax, **summary.versions}
    facts = [
        Fact("Hardware", summary.hardware),
        Fact("Versions", ", ".join(f"{name} {text}" for name, text in versions.items() if text)),
    ]
    if export is not None:
        size = f", {scaled(export.bytes, 'B')}" if known(export.bytes) else ""
        facts.append(Fact("Exported student", f"{export.directory}{size}"))
        difference = number(export.max_difference) if known(export.max_difference) else ""
        facts.append(Fact("Largest difference after export", difference))
    return [fact for fact in facts if fact.value]


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


def matrices(job: JobData) -> list[Matrix]:
    """Confusion of each network, then their answers against each other."""
    analysis = job.analysis
    found = [
        _matrix(job, NAMES[role], "truth", "answer", counts)
        for role, counts in sorted(analysis.confusion.items(), key=lambda item: _order(item[0]))
        if role in NAMES and counts.size
    ]
    if analysis.agreement_matrix is not None and analysis.agreement_matrix.size:
        title = "Teacher against student"
        found.append(_matrix(job, title, "teacher", "student", analysis.agreement_matrix))
    return found


def pairs(job: JobData) -> tuple[list[str], list[Pair]]:
    """The classes most often confused, where there are too many to write a matrix out."""
    confusion = {
        role: job.analysis.confusion[role] for role in ROLES if role in job.analysis.confusion
    }
    if not confusion or len(next(iter(confusion.values()))) <= CELLS:
        return [], []
    wrong = np.sum(list(confusion.values()), axis=0)
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = []
    for truth, answer in zip(*np.unravel_index(worst, wrong.shape), strict=True):
        if wrong[truth, answer]:
            counts = [int(matrix[truth, answer]) for matrix in confusion.values()]
            label = job.summary.data.label
            found.append(Pair(label(int(truth)), label(int(answer)), counts))
    return list(confusion), found


def examples(job: JobData, limit: int = EXAMPLES) -> list[Example]:
    """Images that teacher and student answer differently."""
    shown = [_example(job, disagreement) for disagreement in job.analysis.disagreements[:limit]]
    return [example for example in shown if example.image]


def _run_facts(run: Mapping[str, Any]) -> list[Fact]:
    fit = run.get("fit") or {}
    epochs, batch = fit.get("epochs"), fit.get("batch_size")
    length = [f"{epochs:g} epochs" if known(epochs) else "", f"batch of {batch}" if batch else ""]
    facts = [
        Fact("Network", phrase(run["model"]) if "model" in run else "", code=True),
        Fact("Objective", objective(run.get("losses")), code=True),
        Fact("Length", ", ".join(filter(None, length))),
        Fact("Optimizer", phrase(fit["optimizer"]) if "optimizer" in fit else "", code=True),
        Fact("Schedule", phrase(fit["schedule"]) if "schedule" in fit else "", code=True),
        Fact("Starts from", "the teacher's most important channels" if run.get("inherit") else ""),
        Fact("Seed", str(run["seed"]) if "seed" in run else ""),
    ]
    return [fact for fact in facts if fact.value]


def _validation_panels(job: JobData, key: str) -> list[Panel]:
    shown = {
        "top1": ("Top-1 accuracy", True),
        "nll": ("Negative log-likelihood", False),
        "ece": ("Calibration error (ECE)", True),
        "agreement": ("Same answer as the teacher", True),
    }
    panels = []
    for name, (title, share) in shown.items():
        lines = {
            role: [weights[name] for weights in history.validation.values() if name in weights]
            for role, history in job.histories.items()
        }
        flat = [Line(role, series) for role in ROLES for series in lines.get(role, [])]
        if any(line.series.last is not None for line in flat):
            svg = figures.curves(flat, key=f"{key}-validation-{name}", share=share, linear=share)
            panels.append(_panel(title, svg, flat, share))
    return panels


def _train_panels(
    job: JobData, key: str, names: Sequence[str], *, linear: bool = False
) -> list[Panel]:
    panels = []
    for name in names:
        lines = [
            Line(role, job.histories[role].train[name])
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
        lines = [Line(role, series) for series in felt.values()]
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
    return Panel(title, svg, f"{title} over the epochs. {note}", note + gaps)


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
    return titles.get(name, prefix + (words if prefix else words[:1].upper() + words[1:]))


def _matrix(job: JobData, title: str, rows: str, columns: str, counts: np.ndarray) -> Matrix:
    size = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    correct = percent(np.trace(counts) / max(int(counts.sum()), 1), int(counts.sum()))
    return Matrix(
        title=title,
        classes=[job.summary.data.label(i) for i in range(size)],
        counts=counts,
        roots=np.sqrt(share).round(3).tolist() if size <= CELLS else [],
        image=pictures.matrix(counts) if size > CELLS else "",
        alt=f"Matrix of {size} classes: {rows} in rows, {columns} in columns.",
        note=f"Rows: {rows}. Columns: {columns}. {correct} lie on the diagonal.",
    )


def _example(job: JobData, found: Disagreement) -> Example:
    label = job.summary.data.label
    answers = [
        (role, label(answer), percent(probability), answer == found.label)
        for role, answer, probability in (
            ("teacher", found.teacher, found.teacher_probability),
            ("student", found.student, found.student_probability),
        )
    ]
    says = "; ".join(f"the {role} answers {name}" for role, name, _, _ in answers)
    truth = label(found.label)
    image, small = pictures.example(found.image)
    alt = f"Test image {found.index} of class {truth}; {says}."
    return Example(image, small, alt, truth, answers)


def _order(role: str) -> int:
    return ROLES.index(role) if role in ROLES else len(ROLES)
