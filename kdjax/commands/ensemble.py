"""Runs together and apart."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from kdjax.commands.flags import parse
from kdjax.jobs.ensemble import join, split
from kdjax.models.ensemble import Weighting


@dataclass(frozen=True)
class JoinFlags:
    """Runs that answer as one: `kdjax ensemble join runs/a runs/b --out runs/both`."""

    runs: Positional[tuple[Path, ...]]
    """Finished run directories, for the same images and classes."""
    out: Path
    """Run directory to write."""
    weights: tuple[float, ...] = ()
    """How much each run counts, positive; only their ratios matter. By default all alike."""
    weighting: Weighting = "fixed"
    """Whether a run counts more for an example that it is surer of, by entropy or confidence."""
    checkpoint: str = "best"
    """Of each run: `best`, `latest` or a step."""


@dataclass(frozen=True)
class SplitFlags:
    """A member of an ensemble: `kdjax ensemble split runs/both --member 0 --out runs/a`."""

    run: Positional[Path]
    """The run directory of an ensemble."""
    member: int
    """Which, from 0."""
    out: Path
    """Run directory to write."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""


def run(arguments: list[str]) -> None:
    """Runs together and apart."""
    what, *rest = arguments
    {"join": _join, "split": _split}[what](rest)


def _join(arguments: list[str]) -> None:
    flags = parse(JoinFlags, arguments, "kdjax ensemble join")
    model = join(
        flags.runs,
        flags.out,
        weights=flags.weights,
        weighting=flags.weighting,
        checkpoint=flags.checkpoint,
    )
    names = ", ".join(type(member).__name__ for member in model.members)
    Console().print(f"{flags.out}: Ensemble of {names}", soft_wrap=True, highlight=False)


def _split(arguments: list[str]) -> None:
    flags = parse(SplitFlags, arguments, "kdjax ensemble split")
    model = split(flags.run, flags.member, flags.out, checkpoint=flags.checkpoint)
    Console().print(f"{flags.out}: {type(model).__name__}", soft_wrap=True, highlight=False)
