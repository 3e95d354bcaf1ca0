"""The teacher alone."""

from rich.console import Console

from kdjax import distill as job
from kdjax import tables
from kdjax.commands.preset_flags import WorkFlags
from kdjax.flags import parse_with_preset


def run(arguments: list[str]) -> None:
    """The teacher alone."""
    flags = parse_with_preset(WorkFlags, arguments, "kdjax train")
    summary = job.train(flags.experiment, flags.directory)
    if summary:
        Console().print(tables.comparison(summary))
