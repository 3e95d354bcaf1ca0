"""A checkpoint as stand-alone files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional

from kdjax.commands.flags import parse
from kdjax.deploy.export import export as export_network
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import evaluate_run, verification_images
from kdjax.experiment import UNKNOWN
from kdjax.training.parallel import set_up_compilation_cache


@dataclass(frozen=True)
class ExportFlags:
    """A checkpoint as stand-alone files: `kdjax export runs/digits/student --output exported`."""

    run: Positional[Path]
    """A run directory."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""
    formats: tuple[Literal["stablehlo"], ...] = ("stablehlo",)
    """What to write."""
    output: Path | None = None
    """Directory to write; by default `export` in the run directory."""


def run(arguments: list[str]) -> None:
    """A checkpoint as stand-alone files."""
    flags = parse(ExportFlags, arguments, "kdjax export")
    set_up_compilation_cache()
    network = load(flags.run, flags.checkpoint)
    directory = flags.output or flags.run / "export"
    if directory.exists() and not (directory / "card.json").is_file():
        raise ValueError(f"--output: {directory} exists and is not an export; choose another.")
    known = network.info.name != UNKNOWN
    metrics = evaluate_run(flags.run, checkpoint=flags.checkpoint) if known else {}
    card = export_network(network, directory, verification_images(network), metrics)
    summary = {key: card[key] for key in ("model", "step", "bytes", "max_difference")}
    Console().print(f"{directory}: {json.dumps(summary)}", soft_wrap=True, highlight=False)
