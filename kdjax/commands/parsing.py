"""From a command line to a dataclass. Light: commands that need no JAX import nothing heavier."""

from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(
    cls: type[T],
    arguments: Sequence[str],
    program: str,
    default: T | None = None,
    description: str = "",
) -> T:
    """An instance of `cls` from flags; a wrong flag exits with 2 and a suggestion."""
    parsed: Any = tyro.cli(
        cls,
        args=list(arguments),
        default=default,
        prog=program,
        description=description or None,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
        use_underscores=True,
    )
    return parsed
