"""The whole job."""

import shlex

from rich.console import Console

from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import WorkFlags
from kdjax.commands.tables import chosen_metrics, comparison
from kdjax.jobs import distill as job


def run(arguments: list[str]) -> None:
    """The whole job."""
    flags = parse_with_preset(WorkFlags, arguments, "kdjax distill")
    command = shlex.join(["kdjax", "distill", *arguments])
    summary = job.distill(flags.experiment, flags.directory, command)
    if summary:
        console = Console()
        console.print(comparison(summary))
        if (metrics := chosen_metrics(summary)) is not None:
            console.print(metrics)
        console.print(f"report: {flags.directory / 'report.html'}", soft_wrap=True, highlight=False)
