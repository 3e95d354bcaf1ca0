"""What a preset will cost, before money is spent."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from kdjax.commands import plan_tables
from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import Flattened
from kdjax.experiment import Constant, Experiment, Student, Teacher
from kdjax.outlook.account import outlook, subject
from kdjax.outlook.check import check
from kdjax.outlook.chips import chip_named
from kdjax.training.run_directory import write_json

Part = TypeVar("Part", Student, Teacher)


@dataclass(frozen=True)
class PlanFlags:
    """Flags of plan."""

    experiment: Flattened
    chip: str = "H200"
    """H100, H200, A100, L4, v5e, v5p or v6e."""
    chips: int | None = None
    """Also print the account of this many chips; None: one, and no account."""
    images: int | None = None
    """Training images; None: those of the data set."""
    epochs: float | None = None
    """Of every run; None: as the preset says."""
    price: float | None = None
    """Of one chip for an hour, in any currency."""
    synthetic: tuple[int, int, int] | None = None
    """Images of this height, width and channels, where the data is not at hand."""
    check: Path | None = None
    """JSON of `kdjax benchmark`: say how far the outlook is from it, instead of all else."""
    output: Path | None = None
    """JSON file to write."""


def run(arguments: list[str]) -> None:
    """Estimate, print, write."""
    flags = parse_with_preset(PlanFlags, arguments, "kdjax plan")
    _check_flags(flags)
    experiment, console = flags.experiment, Console()
    if flags.epochs is not None:
        experiment = _with_epochs(experiment, flags.epochs)
    if flags.check:
        teacher, shape, _ = subject(experiment, flags.synthetic, flags.images)
        lines = check(experiment, teacher, shape, flags.check)
        console.print(plan_tables.checked(lines))
        if flags.output:
            write_json(flags.output, {"check": lines})
        return
    result = outlook(
        experiment,
        chip_named(flags.chip),
        flags.chips or 1,
        synthetic=flags.synthetic,
        images=flags.images,
        price=flags.price,
    )
    for part in plan_tables.tables(result, detailed=flags.chips is not None):
        console.print(part)
    if flags.output:
        write_json(flags.output, result)


def _check_flags(flags: PlanFlags) -> None:
    for name in ("chips", "images", "epochs", "price"):
        value = getattr(flags, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name}: {value} cannot be; it is a positive number.")


def _with_epochs(experiment: Experiment, epochs: float) -> Experiment:
    def shorter(part: Part) -> Part:
        # What a step costs does not hang on its rate; the schedule's drops may lie beyond the end.
        fit = dataclasses.replace(part.fit, epochs=epochs, schedule=Constant(), phases=())
        return dataclasses.replace(part, fit=fit)

    return dataclasses.replace(
        experiment,
        teacher=shorter(experiment.teacher),
        student=shorter(experiment.student),
        assistants=tuple(map(shorter, experiment.assistants)),
    )
