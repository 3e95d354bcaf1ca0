"""Tables for a terminal, a pipe and a job log."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
from rich.table import Table
from rich.text import Text

from kdjax.config import to_json
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import open_experiment_data
from kdjax.experiment import Experiment, Run
from kdjax.losses import term_names
from kdjax.models import Model
from kdjax.models.summary import flops, parameter_count, stage_shapes
from kdjax.runs import baseline_run, student_run, teacher_run
from kdjax.training.parallel import Devices
from kdjax.training.state import initial_adapters
from kdjax.training.step import Plan


def comparison(summary: Mapping[str, Any]) -> Table:
    """The networks of a job side by side on the test split: last checkpoint before best."""
    table = Table("", "parameters", "FLOPs", title=summary.get("name"), title_justify="left")
    for column in ("top-1 last", "top-1 best", "95 % interval", "agreement", "ms/image"):
        table.add_column(column, justify="right")
    for role, model in summary["models"].items():
        latest, best = model["latest"], model["best"]
        low, high = best["top1_interval"]
        table.add_row(
            role,
            f"{model['parameters']:,}",
            engineering(model["flops"]),
            f"{latest['top1']:.2%}",
            f"{best['top1']:.2%}",
            f"{low:.1%} to {high:.1%}",
            f"{best['agreement']:.2%}" if "agreement" in best else "",
            f"{model['latency_ms']['1']:.2f}",
        )
    return table


def metrics(values: Mapping[str, Any]) -> Table:
    """One evaluation."""
    low, high = values["top1_interval"]
    which = f"{values['checkpoint']} checkpoint, step {values['step']}, {values['weights']} weights"
    title = f"{values['run']}: {which}, {values['split']} split, {values['count']:,} examples"
    table = Table("metric", title=title, title_justify="left")
    table.add_column("value", justify="right")
    table.add_row("top-1", f"{values['top1']:.2%}")
    table.add_row("95 % interval", f"{low:.2%} to {high:.2%}")
    table.add_row("top-5", f"{values['top5']:.2%}")
    table.add_row("NLL (nats)", f"{values['nll']:.4f}")
    table.add_row("ECE", f"{values['ece']:.2%}")
    if "agreement" in values:
        table.add_row("agreement with teacher", f"{values['agreement']:.2%}")
        table.add_row("KL from teacher (nats)", f"{values['teacher_kl']:.4f}")
    return table


def explain(experiment: Experiment) -> Iterator[Table | Text]:
    """What an experiment means, part by part."""
    yield Text(to_json(experiment).rstrip())
    info = open_experiment_data(experiment).info
    runtime = experiment.runtime
    devices = Devices(runtime.backend, runtime.devices)
    spec = experiment.teacher
    named = load(spec.run, spec.checkpoint).run if spec.run else None
    teacher = named or teacher_run(experiment)
    runs = [] if named else [teacher]
    runs += [baseline_run(experiment, teacher.model)] if experiment.baseline else []
    runs.append(student_run(experiment, teacher.model, None))
    yield _networks({"teacher": teacher.model, "student": runs[-1].model}, info.shape)
    yield _terms(runs[-1], teacher.model, info.shape)
    yield _schedule(runs, info.sizes["train"], devices)


def engineering(value: float) -> str:
    """Three figures and a unit: 41.6 M."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value:.3g}"


def _networks(models: Mapping[str, Model], shape: tuple[int, int, int]) -> Table:
    table = Table("network", "type", title="networks", title_justify="left")
    for column in ("parameters", "FLOPs/image"):
        table.add_column(column, justify="right")
    table.add_column("stages")
    for role, model in models.items():
        stages = stage_shapes(model, shape).items()
        table.add_row(
            role,
            type(model).__name__,
            f"{parameter_count(model, shape):,}",
            engineering(flops(model, shape)),
            ", ".join(f"{name} {'x'.join(map(str, size))}" for name, size in stages),
        )
    return table


def _terms(run: Run, teacher: Model, shape: tuple[int, int, int]) -> Table:
    table = Table("term", "weight", "taps (student ← teacher)", title="losses of the student")
    table.title_justify = "left"
    table.add_column("adapter parameters", justify="right")
    key = jax.eval_shape(partial(jax.random.key, 0))
    adapters = jax.eval_shape(
        lambda key: initial_adapters(run.losses, run.model, teacher, shape, key), key
    )
    for name, term in zip(term_names(run.losses), run.losses, strict=True):
        taps = ", ".join(f"{ours} ← {theirs}" for ours, theirs in term.loss.taps())
        leaves = jax.tree.leaves(adapters.get(name, {}).get("params", {}))
        count = sum(math.prod(leaf.shape) for leaf in leaves)
        ramp = term.schedule
        moves = f" × {ramp.start:g}…{ramp.stop:g} ({ramp.shape})" if ramp else ""
        table.add_row(name, f"{term.weight:g}{moves}", taps or "logits", f"{count:,}")
    return table


def _schedule(runs: list[Run], examples: int, devices: Devices) -> Table:
    table = Table("run", title=f"{devices.count} device(s)", title_justify="left")
    for column in ("epochs", "steps", "batch", "batch per device"):
        table.add_column(column, justify="right")
    for run in runs:
        batch = run.fit.batch_size
        devices.check_batch(f"{run.role}.fit.batch_size", batch, run.fit.accumulate)
        steps = Plan.of(run, None, examples).steps
        per_device = batch // devices.count
        table.add_row(run.role, f"{run.fit.epochs:g}", f"{steps:,}", f"{batch}", f"{per_device}")
    return table
