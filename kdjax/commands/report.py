"""One page about jobs."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from kdjax.commands.flags import parse
from kdjax.report.page import build, read_job


@dataclass(frozen=True)
class ReportFlags:
    """A page about jobs: `kdjax report runs/digits runs/other --output report.html`."""

    runs: Positional[tuple[Path, ...]]
    """Work directories or run directories."""
    output: Path
    """The HTML file."""


def run(arguments: list[str]) -> None:
    """One page about jobs."""
    flags = parse(ReportFlags, arguments, "kdjax report")
    page = build([read_job(path) for path in flags.runs])
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_text(page)
    Console().print(f"{flags.output}: {len(page):,} bytes", soft_wrap=True, highlight=False)
