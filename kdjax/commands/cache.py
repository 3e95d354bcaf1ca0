"""A teacher's answers on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from kdjax.commands.flags import parse, parse_with_preset
from kdjax.commands.preset_flags import WorkFlags
from kdjax.jobs import cache as job
from kdjax.training.parallel import set_up_compilation_cache


@dataclass(frozen=True)
class CacheFlags:
    """Answers on disk: `kdjax cache verify caches/digits`."""

    directory: Positional[Path]
    """A cache."""


def run(arguments: list[str]) -> None:
    """Build, verify or inspect."""
    what, *rest = arguments
    {"build": _build, "verify": _verify, "inspect": _inspect}[what](rest)


def _build(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        raise ValueError("the preset comes first: kdjax cache build PRESET …")
    flags = parse_with_preset(WorkFlags, arguments, "kdjax cache build")
    if flags.experiment.runtime.compilation_cache:
        set_up_compilation_cache()
    _say(job.build(flags.experiment, flags.directory))


def _verify(arguments: list[str]) -> None:
    set_up_compilation_cache()
    _say(job.verify(parse(CacheFlags, arguments, "kdjax cache verify").directory))


def _inspect(arguments: list[str]) -> None:
    _say(job.describe(parse(CacheFlags, arguments, "kdjax cache inspect").directory))


def _say(facts: Mapping[str, Any]) -> None:
    """What is known of a cache, a row a fact."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)
