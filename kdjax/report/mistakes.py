"""Which classes the networks of a job confuse, and what teacher and student see differently."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from kdjax.report import pictures
from kdjax.report.job import ROLES, Disagreement, JobData
from kdjax.report.words import NAMES, percent

CELLS = 12
"""Most classes a confusion matrix is written out for; more become an image."""
PAIRS = 10
"""Rows of the table of confused classes."""
EXAMPLES = 24
"""Most disagreements on a page."""


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
