"""A benchmark from beginning to end: one mapping of plain values, for JSON, a table, a picture."""

import os
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from typing import Any

import jax

from kdjax import __version__
from kdjax.benchmark.against import Framework, compared, rivals
from kdjax.benchmark.first_step import first_step
from kdjax.benchmark.measure import Timing, interleaved, load
from kdjax.benchmark.parts import cost, programs
from kdjax.benchmark.roof import roof_programs, roof_work
from kdjax.benchmark.subject import Subject, subject_of
from kdjax.benchmark.whole_loop import steps_for, whole_loop
from kdjax.evaluation.of_run import open_experiment_data
from kdjax.experiment import Experiment


def benchmark(
    experiment: Experiment,
    *,
    rounds: int,
    loop_seconds: float,
    synthetic: tuple[int, int, int] | None = None,
    against: Framework | None = None,
) -> dict[str, Any]:
    """Measure the experiment's first distillation, with networks that were not trained.

    `against`: measure the same step in that framework too. Raises ValueError for what the user can
    mend.
    """
    before = load()
    subject = subject_of(experiment, synthetic)
    dtype = subject.run.model.dtype
    others = rivals(subject, against) if against else None
    own = {**programs(subject), **roof_programs(dtype)}
    measured = interleaved({**own, **(others.programs if others else {})}, rounds)
    timings = {name: measured[name] for name in own}
    counted = cost(subject)
    data = None if synthetic else open_experiment_data(experiment)
    validation = data.open("validation") if data else subject.source
    steps = steps_for(loop_seconds, timings["step"].seconds)
    loop = whole_loop(subject, experiment.runtime, validation, steps, own["step"])
    compare = {"against": compared(others, measured)} if others else {}
    return {
        "name": experiment.name,
        "about": _about(subject),
        "load": {"before": before, "after": load()},
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "step": _step(subject, timings, counted, dtype),
        **compare,
        "loop": {**loop, **_speeds(subject, loop)},
        "first_step_seconds": first_step(experiment, synthetic),
        "memory": _memory(counted),
    }


def _about(subject: Subject) -> dict[str, Any]:
    device, run = jax.devices()[0], subject.run
    libraries = ("jax", "jaxlib", "flax", "optax")
    return {
        "date": date.today().isoformat(),
        "device": f"{subject.devices.count} x {device.device_kind}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "kdjax": __version__,
        **{name: version(name) for name in libraries},
        "teacher": type(subject.teacher).__name__,
        "student": type(run.model).__name__,
        "dtype": run.model.dtype,
        "batch": run.fit.batch_size,
        "images": "x".join(map(str, subject.info.shape)),
        "data": subject.info.name,
    }


def _step(
    subject: Subject, timings: Mapping[str, Timing], counted: Mapping[str, float], dtype: str
) -> dict[str, float]:
    """Rates, and the share of what the device could do at most."""
    work, seconds = roof_work(dtype), timings["step"].seconds
    flops_a_second = work["matmul"] / timings["matmul"].seconds
    bytes_a_second = work["copy"] / timings["copy"].seconds
    least = max(counted["flops"] / flops_a_second, counted["bytes"] / bytes_a_second)
    found = {
        "images_a_second": subject.run.fit.batch_size / seconds,
        "flops": counted["flops"],
        "bytes": counted["bytes"],
        "roof_flops_a_second": flops_a_second,
        "roof_bytes_a_second": bytes_a_second,
        "share_of_flops_roof": counted["flops"] / flops_a_second / seconds,
        "share_of_bytes_roof": counted["bytes"] / bytes_a_second / seconds,
        "share_of_roof": least / seconds,
    }
    if "cached step" in timings:
        found["cached_over_online"] = seconds / timings["cached step"].seconds
    return found


def _speeds(subject: Subject, loop: Mapping[str, float]) -> dict[str, float]:
    batch, alone = subject.run.fit.batch_size, loop["seconds_a_step_alone"]
    return {
        "images_a_second": batch / loop["seconds_a_step"],
        "images_a_second_with_all": batch / loop["seconds_a_step_with_all"],
        "loop_over_step": alone / loop["seconds_a_step"],
        "all_over_step": alone / loop["seconds_a_step_with_all"],
    }


def _memory(counted: Mapping[str, float]) -> dict[str, float]:
    """Peaks, in bytes: of this process, of a device where it says so; and what a step needs."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "process_peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit),
        "step_temporary": counted["temporary_bytes"],
    }
    statistics = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        found["device_peak"] = float(statistics["peak_bytes_in_use"])
    return found
