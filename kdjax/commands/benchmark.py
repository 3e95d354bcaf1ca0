"""How fast a preset trains here, and what its time goes into."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from kdjax.benchmark.bench import benchmark
from kdjax.benchmark.picture import draw
from kdjax.commands import tables
from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import Flattened
from kdjax.training.run_directory import write_json


@dataclass(frozen=True)
class BenchmarkFlags:
    """Flags of benchmark."""

    experiment: Flattened
    rounds: int = 7
    """Times each program is timed, in turns with the others."""
    loop_seconds: float = 15.0
    """How long the training loop runs, about."""
    synthetic: tuple[int, int, int] | None = None
    """Random images of this height, width and channels, instead of the data."""
    against: Literal["torch"] | None = None
    """Also measure the same step in this framework, in the forms its users run."""
    output: Path | None = None
    """JSON file to write, and beside it a picture, `.png`."""


def run(arguments: list[str]) -> None:
    """Measure, print, write."""
    flags = parse_with_preset(BenchmarkFlags, arguments, "kdjax benchmark")
    if flags.rounds < 1 or flags.loop_seconds <= 0:
        raise ValueError("--rounds must be at least 1, and --loop_seconds positive.")
    result = benchmark(
        flags.experiment,
        rounds=flags.rounds,
        loop_seconds=flags.loop_seconds,
        synthetic=flags.synthetic,
        against=flags.against,
    )
    console = Console()
    console.print(tables.benchmark(result))
    if "against" in result:
        console.print(tables.against(result["against"], result["about"]["batch"]))
    if flags.output:
        write_json(flags.output, result)
        draw(result, flags.output.with_suffix(".png"))
