"""The report: one HTML page that needs nothing but itself. From data to text, no files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdjax.report import facts, mistakes, panels, tables, words
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
    limit = max(4, mistakes.EXAMPLES // len(jobs))
    same_data = len({job.summary.data.name for job in jobs}) == 1
    page = environment.get_template("page.html.j2")
    return page.render(
        css=Markup((HOME / "page.css").read_text()),
        title=_title(jobs),
        columns=tables.OVERVIEW,
        overview=tables.overview(jobs) if len(jobs) > 1 else [],
        trade_off=panels.trade_off(jobs) if len(jobs) > 1 and same_data else None,
        same_data=same_data,
        jobs=[_view(job, f"job-{i}", limit) for i, job in enumerate(jobs, start=1)],
        names=words.NAMES,
    )


def _title(jobs: Sequence[JobData]) -> str:
    return jobs[0].summary.name if len(jobs) == 1 else f"{len(jobs)} jobs compared"


def _view(job: JobData, key: str, limit: int) -> dict[str, Any]:
    """What the template shows of one job, in the order in which it shows it."""
    confused_by, pairs = mistakes.pairs(job)
    return {
        "key": key,
        "name": job.summary.name,
        "headline": words.headline(job),
        "comparison": words.comparison(job),
        "published": words.published(job),
        "warnings": facts.warnings(job),
        "tiles": tables.tiles(job),
        "intervals": panels.intervals(job, key=key),
        "roles": tables.roles(job),
        "groups": tables.groups(job),
        "hardware": job.summary.hardware,
        "data": facts.data_facts(job),
        "cards": facts.cards(job),
        "trained": [role for role in ROLES if role in job.histories],
        "chapters": panels.chapters(job, key=key),
        "reliability": panels.reliability(job, key=key),
        "matrices": mistakes.matrices(job),
        "analysed": job.analysis.checkpoint,
        "confused_by": confused_by,
        "pairs": pairs,
        "examples": mistakes.examples(job, limit),
        "command": job.summary.command,
        "delivery": facts.delivery(job),
        "config": json.dumps(job.config, indent=2, ensure_ascii=False) if job.config else "",
    }
