"""The teacher alone."""

from rich.console import Console

from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import WorkFlags
from kdjax.commands.tables import comparison
from kdjax.jobs import distill as job


def run(arguments: list[str]) -> None:
    """The teacher alone."""
    flags = parse_with_preset(WorkFlags, arguments, "kdjax train")
    summary = job.train(flags.experiment, flags.directory)
    if summary:
        Console().print(comparison(summary))
