"""How fast a preset trains here, and what its time goes into."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from kdjax.benchmark.bench import benchmark
from kdjax.benchmark.picture import draw
from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import Flattened
from kdjax.commands.tables import engineering, titled
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
    console.print(parts(result))
    if "against" in result:
        console.print(against(result["against"], result["about"]["batch"]))
    if flags.output:
        write_json(flags.output, result)
        draw(result, flags.output.with_suffix(".png"))


def parts(result: Mapping[str, Any]) -> Table:
    """Where a training step's time goes, on a machine that was so busy."""
    about, batch = result["about"], result["about"]["batch"]
    table = titled(
        f"{result['name']}: {about['teacher']} teaches {about['student']}, batches of {batch}, "
        f"{about['images']}, {about['dtype']}, {about['device']}"
    )
    table.add_column("")
    for column in ("ms", "images/s", "of the step"):
        table.add_column(column, justify="right")
    whole, loop, step = result["timings"]["step"]["seconds"], result["loop"], result["step"]
    rows = {name: timing["seconds"] for name, timing in result["timings"].items()}
    for roof in ("matmul", "copy"):
        del rows[roof]
    rows["loop"], rows["loop with validation"] = (
        loop["seconds_a_step"],
        loop["seconds_a_step_with_all"],
    )
    for name, seconds in rows.items():
        rate, of_step = f"{batch / seconds:,.0f}", f"{seconds / whole:.1%}"
        table.add_row(name, f"{1e3 * seconds:.3f}", rate, of_step)
    cached = step.get("cached_over_online")
    speed = f"the loop runs at {loop['loop_over_step']:.0%} of the step alone"
    faster = f"cached over online {cached:.2f} x; " if cached else ""
    first, load = result["first_step_seconds"], result["load"]
    table.caption = (
        f"{speed}, {loop['all_over_step']:.0%} with validation and checkpoints\n"
        f"{faster}first step {first['cold']:.1f} s cold, {first['warm']:.1f} s warm\n"
        f"{engineering(step['flops'])}FLOP and {engineering(step['bytes'])}B a step; "
        f"{step['share_of_flops_roof']:.0%} of {engineering(step['roof_flops_a_second'])}FLOP/s, "
        f"{step['share_of_bytes_roof']:.0%} of {engineering(step['roof_bytes_a_second'])}B/s, "
        "both measured here\n"
        f"load {load['before']} before, {load['after']} after; peak memory "
        f"{engineering(result['memory']['process_peak'])}B"
    )
    return table


def against(result: Mapping[str, Any], batch: int) -> Table:
    """Our step and another framework's, which took turns on the same device: time over time."""
    table = titled(f"the same step without augmentation: {result['about']}")
    table.add_column("", no_wrap=True)
    for column in ("ms", "images/s", "over kdjax", "by processor time"):
        table.add_column(column, justify="right")
    for name, timing in result["timings"].items():
        speeds = [result[key].get(name) for key in ("ours_faster", "ours_faster_processor")]
        times = [f"{speed:.2f} x" if speed else "" for speed in speeds]
        seconds = timing["seconds"]
        table.add_row(name, f"{1e3 * seconds:.3f}", f"{batch / seconds:,.0f}", *times)
    left = [f"{name} left out: {why}" for name, why in result["left_out"].items()]
    table.caption = "\n".join(["over kdjax: above 1 it takes longer than kdjax", *left])
    return table
