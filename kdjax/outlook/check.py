"""What the outlook says of this machine, beside what `kdjax benchmark` measured on it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.experiment import Experiment
from kdjax.experiment.runs import chain
from kdjax.models import Model
from kdjax.models.summary import Shape
from kdjax.outlook.chips import LAUNCH, Chip
from kdjax.outlook.estimate import EXPECTED, estimate
from kdjax.outlook.workload import Workload, workload


def check(experiment: Experiment, teacher: Model, shape: Shape, file: Path) -> list[dict[str, Any]]:
    """Predicted and measured seconds of a step; ValueError unless the file is of this experiment.

    The chip is what the file's matmul and copy sustained; what is predicted is the roof.
    """
    measured = _read(file)
    run, teaching = chain(experiment, teacher, shape)[0]
    about = {
        "name": (measured["name"], experiment.name),
        "batch": (measured["about"]["batch"], run.fit.batch_size),
        "images": (measured["about"]["images"], "x".join(map(str, shape))),
        "teacher": (measured["about"]["teacher"], type(teaching).__name__),
        "student": (measured["about"]["student"], type(run.model).__name__),
        "dtype": (measured["about"]["dtype"], run.model.dtype),
    }
    for field, (theirs, ours) in about.items():
        if theirs != ours:
            raise ValueError(
                f"--check: {file} measured {field} {theirs}, but the preset's is {ours}."
            )
    work = workload(run, teaching, shape, max(50_000, run.fit.batch_size))
    chip, chips = _chip(measured)
    pairs = {"step": work, "cached step": work.without_teacher()}
    timings = measured["timings"]
    known = [name for name in pairs if name in timings]
    return [_line(name, pairs[name], chip, chips, timings) for name in known]


def _line(
    name: str, work: Workload, chip: Chip, chips: int, timings: Mapping[str, Any]
) -> dict[str, Any]:
    measured = timings[name]["seconds"]
    roof = estimate(work, chip, chips).roof
    return {
        "what": name,
        "measured_seconds": measured,
        "roof_seconds": roof,
        "expected_seconds": roof / EXPECTED,
        "share_of_roof": roof / measured,
        "error": roof / EXPECTED / measured - 1,
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        measured = json.loads(file.read_text())
        for key in ("roof_flops_a_second", "roof_bytes_a_second"):
            measured["step"][key]
        measured["about"]["device"], measured["timings"]["step"]["seconds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--check: {file} is not what `kdjax benchmark --output` writes "
            f"({type(error).__name__}: {error}); write it again."
        ) from error
    return measured


def _chip(measured: Mapping[str, Any]) -> tuple[Chip, int]:
    """This machine as it was measured, which shares nothing with the peaks of a data sheet."""
    count, _, kind = measured["about"]["device"].partition(" x ")
    step = measured["step"]
    rate = step["roof_flops_a_second"]
    on_cpu = kind == "cpu"
    chip = Chip(
        name=kind,
        bfloat16=rate,
        float32=rate,
        memory=float("inf"),
        bandwidth=step["roof_bytes_a_second"],
        link=float("inf"),
        joined=int(count),
        network=float("inf"),
        host=int(count),
        cores=1,
        launch=0.0 if on_cpu or "TPU" in kind else LAUNCH,
        flops_share=1.0,
        bandwidth_share=1.0,
        source="measured",
    )
    return chip, int(count)
