"""The tables of a page, cell by cell: which numbers are shown, under which names."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kdjax.report.job import ROLES, Evaluation, JobData, Network
from kdjax.report.words import (
    duration,
    heading,
    interval,
    known,
    milliseconds,
    number,
    percent,
    provenance,
    scaled,
    signed_points,
    times,
    whole,
)


class Cell(NamedTuple):
    """A number and what belongs to it."""

    text: str = ""
    note: str = ""


class Row(NamedTuple):
    """One quantity for every network of a job."""

    name: str
    cells: Sequence[Cell]


class Group(NamedTuple):
    """Rows that belong together."""

    name: str
    rows: Sequence[Row]


class Tile(NamedTuple):
    """One gain, large."""

    value: str
    name: str
    note: str


def roles(job: JobData) -> list[str]:
    """The networks there are, in their order."""
    return [role for role in ROLES if role in job.summary.models]


def tiles(job: JobData) -> list[Tile]:
    """What the student is better at than its teacher, and what it pays."""
    models = job.summary.models
    if "teacher" not in models or "student" not in models:
        return []
    teacher, student = models["teacher"], models["student"]
    found = [
        _accuracy_tile(teacher.latest, student.latest),
        _tile("parameters", "fewer", "more", teacher.parameters, student.parameters, scaled),
        _tile("FLOPs", "fewer", "more", teacher.flops, student.flops, scaled),
        _tile("weights", "smaller", "larger", teacher.bytes, student.bytes, _size),
        *(
            _tile(f"at batch {size}", "faster", "slower", theirs, ours, milliseconds)
            for size in batch_sizes([teacher, student])
            for theirs, ours in [(teacher.latency_ms.get(size), student.latency_ms.get(size))]
        ),
    ]
    return [tile for tile in found if tile is not None]


def groups(job: JobData) -> list[Group]:
    """Everything measured; the last checkpoint before the best one, because selection flatters."""
    models = [job.summary.models[role] for role in roles(job)]
    split = next((m.latest.split for m in models if m.latest.split), "test")
    counts = {m.latest.count for m in models if known(m.latest.count)}
    images = f", {whole(counts.pop())} {split} images" if len(counts) == 1 else ""
    last = _evaluation_rows([m.latest for m in models])
    found = [
        Group(f"Last checkpoint{images}", [*last[:1], *_published_rows(job), *last[1:]]),
        Group("Best checkpoint, chosen on validation", _evaluation_rows([m.best for m in models])),
        Group("Size and speed", _cost_rows(job, models)),
    ]
    return [group for group in found if group.rows]


def overview(jobs: Sequence[JobData]) -> list[Row]:
    """One row a job, for `OVERVIEW`."""
    return [Row(job.summary.name, _overview_cells(job)) for job in jobs]


PRINTED = 10_000
"""Examples that published numbers have digits for."""
OVERVIEW = ("Data", "Teacher", "Student alone", "Distilled", "Gain", "Parameters", "FLOPs", "Speed")
"""Columns of the table of all jobs."""


def batch_sizes(models: Sequence[Network]) -> list[str]:
    """Batch sizes latency was measured for, in order."""
    sizes = {size for model in models for size in model.latency_ms}
    return sorted(sizes, key=lambda size: (len(size), size))


def _accuracy_tile(teacher: Evaluation, student: Evaluation) -> Tile | None:
    if not (known(teacher.top1) and known(student.top1)):
        return None
    gap = signed_points(student.top1 - teacher.top1, student.count)
    return Tile(percent(student.top1, student.count), "top-1 accuracy", f"{gap} to the teacher")


def _tile(
    name: str,
    less: str,
    more: str,
    teacher: float | None,
    student: float | None,
    show: Callable[[float | None], str],
) -> Tile | None:
    if not (known(teacher) and known(student) and teacher > 0 and student > 0):
        return None
    shrinks = student <= teacher
    factor = times(teacher, student) if shrinks else times(student, teacher)
    word = less if shrinks else more
    return Tile(factor, f"{word} {name}", f"{show(student)} instead of {show(teacher)}")


def _evaluation_rows(evaluations: Sequence[Evaluation]) -> list[Row]:
    rows = [
        Row("Top-1 accuracy", [_top1(e) for e in evaluations]),
        Row("Top-5 accuracy", [_share(e.top5, e) for e in evaluations]),
        Row("Negative log-likelihood, nats", [_plain(e.nll) for e in evaluations]),
        Row("Calibration error (ECE)", [_share(e.ece, e) for e in evaluations]),
        Row("Same answer as the teacher", [_share(e.agreement, e) for e in evaluations]),
        Row("KL from the teacher, nats", [_plain(e.teacher_kl) for e in evaluations]),
        *(
            Row(heading(name), [_plain(e.metrics.get(name)) for e in evaluations])
            for name in dict.fromkeys(name for e in evaluations for name in e.metrics)
        ),
        Row("Epoch", [_epoch(e) for e in evaluations]),
    ]
    return _filled(rows)


def _published_rows(job: JobData) -> list[Row]:
    """What others report, right below what it is compared with."""
    published = job.summary.published
    if published is None:
        return []
    found = [getattr(published, role, None) for role in roles(job)]
    cells = [Cell(percent(top1 / 100, PRINTED) if known(top1) else "") for top1 in found]
    return _filled([Row("Top-1 accuracy, published", cells)])


def _cost_rows(job: JobData, models: Sequence[Network]) -> list[Row]:
    export, seconds = job.summary.export, job.summary.seconds
    rows = [
        Row("Network", [Cell(m.type) for m in models]),
        Row("Parameters", _beside_teacher(job, [m.parameters for m in models], whole)),
        Row("FLOPs per image", _beside_teacher(job, [m.flops for m in models], scaled)),
        Row("Weights, float32", _beside_teacher(job, [m.bytes for m in models], _size)),
        *(
            Row(
                f"Latency, batch of {size}",
                _beside_teacher(job, [m.latency_ms.get(size) for m in models], milliseconds),
            )
            for size in batch_sizes(models)
        ),
        Row("Training time", [_time(seconds.get(role)) for role in roles(job)]),
    ]
    if export is not None:
        rows.append(
            Row(
                "Exported files",
                [Cell(_size(export.bytes)) if role == "student" else Cell() for role in roles(job)],
            )
        )
    return _filled(rows)


def _beside_teacher(
    job: JobData, values: Sequence[float | None], show: Callable[[float | None], str]
) -> list[Cell]:
    """Each value, and for students its share of the teacher's."""
    names = roles(job)
    teacher = dict(zip(names, values, strict=True)).get("teacher")
    cells = []
    for role, value in zip(names, values, strict=True):
        note = ""
        if role != "teacher" and known(teacher) and known(value) and teacher > 0:
            note = f"{percent(value / teacher)} of teacher"
        cells.append(Cell(show(value) if known(value) else "", note))
    return cells


def _overview_cells(job: JobData) -> list[Cell]:
    models = job.summary.models
    shown = ("teacher", "baseline", "student")
    teacher, alone, student = (models.get(role, Network()) for role in shown)
    gain = Cell()
    if known(student.latest.top1) and known(alone.latest.top1):
        difference = student.latest.top1 - alone.latest.top1
        gain = Cell(signed_points(difference, student.latest.count))
    sizes = batch_sizes([teacher, student])
    latency = [m.latency_ms.get(sizes[0]) if sizes else None for m in (teacher, student)]
    speed = Cell(times(*latency), f"batch of {sizes[0]}") if sizes and times(*latency) else Cell()
    return [
        Cell(job.summary.data.name),
        *(_top1(model.latest) for model in (teacher, alone, student)),
        gain,
        _kept(teacher.parameters, student.parameters),
        _kept(teacher.flops, student.flops),
        speed,
    ]


def _kept(teacher: float | None, student: float | None) -> Cell:
    if known(teacher) and known(student) and teacher > 0:
        return Cell(percent(student / teacher), "of teacher")
    return Cell()


def _top1(evaluation: Evaluation) -> Cell:
    return _share(evaluation.top1, evaluation)._replace(note=interval(evaluation))


def _share(value: float | None, evaluation: Evaluation) -> Cell:
    return Cell(percent(value, evaluation.count)) if known(value) else Cell()


def _epoch(evaluation: Evaluation) -> Cell:
    epoch = evaluation.epoch
    if not known(epoch):
        return Cell()
    return Cell(f"{epoch:.3g}" if epoch < 1000 else whole(epoch), provenance(evaluation))


def _plain(value: float | None) -> Cell:
    return Cell(number(value)) if known(value) else Cell()


def _time(seconds: float | None) -> Cell:
    return Cell(duration(seconds)) if known(seconds) else Cell()


def _size(count: float | None) -> str:
    return scaled(count, "B")


def _filled(rows: Sequence[Row]) -> list[Row]:
    """Without the rows that say nothing."""
    return [row for row in rows if any(cell.text for cell in row.cells)]
