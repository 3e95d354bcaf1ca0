"""What a preset means."""

from rich.console import Console

from kdjax.commands import tables
from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import ShowFlags


def run(arguments: list[str]) -> None:
    """What a preset means."""
    flags = parse_with_preset(ShowFlags, arguments, "kdjax show")
    console = Console()
    for part in tables.explain(flags.experiment):
        console.print(part)
