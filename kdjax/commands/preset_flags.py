"""Flags of the commands that take a preset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from kdjax.experiment import Experiment

Flattened = Annotated[Experiment, arg(name="")]


@dataclass(frozen=True)
class WorkFlags:
    """Flags of a job."""

    experiment: Flattened
    workdir: Path | None = None
    """Work directory, by default `runs/NAME`; an unfinished job in it goes on."""

    @property
    def directory(self) -> Path:
        """Where the job lives."""
        return self.workdir or Path("runs") / self.experiment.name


@dataclass(frozen=True)
class ShowFlags:
    """Flags of show."""

    experiment: Flattened
