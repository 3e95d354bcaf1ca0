"""What a job's page names beside its tables: the data, each network's training, the machine."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kdjax.report.job import ROLES, JobData
from kdjax.report.words import TIMES, known, number, objective, phases, phrase, scaled, whole

CLASSES = 12
"""Most classes whose names are written."""


class Fact(NamedTuple):
    """A name and a value; `code` asks for a fixed-width typeface."""

    name: str
    value: str
    code: bool = False


class Card(NamedTuple):
    """One network's facts."""

    role: str
    facts: Sequence[Fact]


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
    classes = ", ".join(data.classes[:CLASSES]) + (", …" if len(data.classes) > CLASSES else "")
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


def _run_facts(run: Mapping[str, Any]) -> list[Fact]:
    fit = run.get("fit") or {}
    epochs, batch = fit.get("epochs"), fit.get("batch_size")
    length = [f"{epochs:g} epochs" if known(epochs) else "", f"batch of {batch}" if batch else ""]
    facts = [
        Fact("Network", phrase(run["model"]) if "model" in run else "", code=True),
        Fact("Objective", objective(run.get("losses")), code=True),
        Fact("Length", ", ".join(filter(None, length))),
        Fact("Phases", phases(fit.get("phases")), code=True),
        Fact("Optimizer", _of_all(fit, "optimizer"), code=True),
        Fact("Schedule", _of_all(fit, "schedule"), code=True),
        Fact("Starts from", "the teacher's most important channels" if run.get("inherit") else ""),
        Fact("Seed", str(run["seed"]) if "seed" in run else ""),
    ]
    return [fact for fact in facts if fact.value]


def _of_all(fit: Mapping[str, Any], name: str) -> str:
    """What the whole fit says, unless each of its phases says otherwise."""
    phases = fit.get("phases") or [{}]
    read = any(not phase.get(name) for phase in phases if isinstance(phase, Mapping))
    return phrase(fit[name]) if name in fit and read else ""
