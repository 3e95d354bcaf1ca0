"""Metrics of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from kdjax.commands.flags import parse
from kdjax.commands.tables import titled
from kdjax.evaluation.of_run import evaluate_run
from kdjax.experiment import Data
from kdjax.training.parallel import set_up_compilation_cache
from kdjax.training.run_directory import write_json


@dataclass(frozen=True)
class EvaluateFlags:
    """Metrics of a checkpoint: `kdjax evaluate runs/digits/student --checkpoint latest`."""

    run: Positional[Path]
    """A run directory."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""
    split: Literal["train", "validation", "test"] = "test"
    """Split of the run's data set."""
    weights: Literal["raw", "ema"] | None = None
    """Raw weights or their moving average; by default the average where one was kept."""
    batch_size: int = 512
    """Examples at a time."""
    output: Path | None = None
    """Write the metrics to this JSON file too."""
    data: str | None = None
    """`tfds:NAME`: evaluate on this data set instead of the run's own."""
    directory: str | None = None
    """Where TFDS keeps that data set."""


def run(arguments: list[str]) -> None:
    """Metrics of a checkpoint."""
    flags = parse(EvaluateFlags, arguments, "kdjax evaluate")
    set_up_compilation_cache()
    metrics = evaluate_run(
        flags.run,
        checkpoint=flags.checkpoint,
        split=flags.split,
        weights=flags.weights,
        batch_size=flags.batch_size,
        data=Data(name=flags.data, directory=flags.directory) if flags.data else None,
    )
    Console().print(_table(metrics))
    if flags.output:
        write_json(flags.output, metrics)


def _table(values: Mapping[str, Any]) -> Table:
    """One evaluation."""
    low, high = values["top1_interval"]
    which = f"{values['checkpoint']} checkpoint, step {values['step']}, {values['weights']} weights"
    title = f"{values['run']}: {which}, {values['split']} split, {values['count']:,} examples"
    table = titled(title)
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_row("top-1", f"{values['top1']:.2%}")
    table.add_row("95 % interval", f"{low:.2%} to {high:.2%}")
    table.add_row("top-5", f"{values['top5']:.2%}")
    table.add_row("NLL (nats)", f"{values['nll']:.4f}")
    table.add_row("ECE", f"{values['ece']:.2%}")
    if "agreement" in values:
        table.add_row("agreement with teacher", f"{values['agreement']:.2%}")
        table.add_row("KL from teacher (nats)", f"{values['teacher_kl']:.4f}")
    for name, value in values.get("metrics", {}).items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table
