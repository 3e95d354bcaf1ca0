"""The report: one HTML page that needs nothing but itself. From data to text, no files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdjax.report import figures, sections, tables, words
from kdjax.report.job import ROLES, JobData, read_job

__all__ = ["JobData", "build", "read_job"]

HOME = Path(__file__).parent


def build(jobs: Sequence[JobData]) -> str:
    """A page about one job, or about several with a comparison first.

    Everything that comes from the jobs is escaped. ValueError if there is no job.
    """
    if not jobs:
        raise ValueError("report: no job is named; name at least one work or run directory.")
    environment = Environment(
        loader=FileSystemLoader(HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    limit = max(4, sections.EXAMPLES // len(jobs))
    same_data = len({job.summary.data.name for job in jobs}) == 1
    page = environment.get_template("page.html.j2")
    return page.render(
        css=Markup((HOME / "page.css").read_text()),
        title=_title(jobs),
        columns=tables.OVERVIEW,
        overview=tables.overview(jobs) if len(jobs) > 1 else [],
        trade_off=_trade_off(jobs) if len(jobs) > 1 and same_data else None,
        same_data=same_data,
        jobs=[_view(job, f"job-{i}", limit) for i, job in enumerate(jobs, start=1)],
        names=words.NAMES,
    )


def _title(jobs: Sequence[JobData]) -> str:
    return jobs[0].summary.name if len(jobs) == 1 else f"{len(jobs)} jobs compared"


def _view(job: JobData, key: str, limit: int) -> dict[str, Any]:
    """What the template shows of one job, in the order in which it shows it."""
    confused_by, pairs = sections.pairs(job)
    return {
        "key": key,
        "name": job.summary.name,
        "headline": words.headline(job),
        "comparison": words.comparison(job),
        "published": words.published(job),
        "warnings": sections.warnings(job),
        "tiles": tables.tiles(job),
        "intervals": _intervals(job, key),
        "roles": tables.roles(job),
        "groups": tables.groups(job),
        "hardware": job.summary.hardware,
        "data": sections.data_facts(job),
        "cards": sections.cards(job),
        "trained": [role for role in ROLES if role in job.histories],
        "chapters": sections.chapters(job, key=key),
        "reliability": sections.reliability(job, key=key),
        "matrices": sections.matrices(job),
        "analysed": job.analysis.checkpoint,
        "confused_by": confused_by,
        "pairs": pairs,
        "examples": sections.examples(job, limit),
        "command": job.summary.command,
        "delivery": sections.delivery(job),
        "config": json.dumps(job.config, indent=2, ensure_ascii=False) if job.config else "",
    }


def _intervals(job: JobData, key: str) -> sections.Panel | None:
    known = [
        (role, job.summary.models[role].latest)
        for role in tables.roles(job)
        if words.known(job.summary.models[role].latest.top1)
    ]
    if not known:
        return None
    rows = [
        f"{words.NAMES[role]} {words.percent(e.top1, e.count)} ({words.interval(e)})"
        for role, e in known
    ]
    svg = figures.intervals(known, key=f"{key}-intervals")
    alt = f"Top-1 accuracy and 95 % intervals: {'; '.join(rows)}."
    return sections.Panel("Top-1 accuracy with 95 % interval", svg, alt)


def _trade_off(jobs: Sequence[JobData]) -> sections.Panel | None:
    points = [
        figures.Point(role, str(i), model.parameters, model.latest.top1)
        for i, job in enumerate(jobs, start=1)
        for role in tables.roles(job)
        for model in [job.summary.models[role]]
        if words.known(model.latest.top1) and words.known(model.parameters) and model.parameters > 0
    ]
    if not points:
        return None
    alt = "Accuracy against the number of parameters; the table gives the same numbers."
    svg = figures.trade_off(points, key="trade-off")
    note = "Squares: teachers. Triangles: assistants. Diamonds: students alone. Circles: distilled."
    return sections.Panel("Accuracy and size", svg, alt, f"{note} Numbers: the jobs.")
