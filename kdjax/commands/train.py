"""The teacher alone."""

from rich.console import Console

from kdjax.commands import tables
from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import WorkFlags
from kdjax.jobs import distill as job


def run(arguments: list[str]) -> None:
    """The teacher alone."""
    flags = parse_with_preset(WorkFlags, arguments, "kdjax train")
    summary = job.train(flags.experiment, flags.directory)
    if summary:
        Console().print(tables.comparison(summary))
