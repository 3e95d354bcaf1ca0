"""What a preset means."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdjax.commands.flags import parse_with_preset
from kdjax.commands.preset_flags import ShowFlags
from kdjax.commands.tables import RULES, engineering, titled
from kdjax.data.drawing import Sampling, class_shares
from kdjax.data.sources import DataInfo
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import open_experiment_data
from kdjax.experiment import Experiment, Phase, Run
from kdjax.experiment.json import to_json
from kdjax.experiment.rules import check_views
from kdjax.experiment.runs import baseline_run, chain, field_of, teacher_run
from kdjax.jobs.checking import check_run
from kdjax.models import Model
from kdjax.models.summary import Shape, flops, output_shapes, parameter_count, stage_shapes
from kdjax.training.beginning import shapes
from kdjax.training.parallel import Devices
from kdjax.training.parts import count_of
from kdjax.training.recipe import Recipe
from kdjax.training.state import adapter_shapes


def run(arguments: list[str]) -> None:
    """What a preset means."""
    flags = parse_with_preset(ShowFlags, arguments, "kdjax show")
    console = Console()
    for part in _explain(flags.experiment):
        console.print(part, soft_wrap=isinstance(part, Text))  # JSON stays JSON in a pipe


def _explain(experiment: Experiment) -> Iterator[Table | Text]:
    """What an experiment means, part by part."""
    yield Text(to_json(experiment).rstrip())
    dataset = open_experiment_data(experiment)
    info = dataset.info
    check_views(experiment.data, info.shape)
    runtime = experiment.runtime
    devices = Devices(runtime.backend, runtime.devices)
    spec = experiment.teacher
    named = load(spec.run, spec.checkpoint).run if spec.run else None
    teacher = named or teacher_run(experiment)
    links = chain(experiment, teacher.model, info.shape)
    runs = [] if named else [teacher]
    runs += [baseline_run(experiment, teacher.model, info.shape)] if experiment.baseline else []
    runs += [run for run, _ in links]
    models = {"teacher": teacher.model, **{run.role: run.model for run, _ in links}}
    taught = {run.role: teaching for run, teaching in links}
    yield _networks(models, info.shape)
    recipes = {run.role: check_run(run, taught.get(run.role), dataset) for run in runs}
    for run, teaching in links:
        for stretch in recipes[run.role].stretches:
            yield _terms(recipes[run.role].at(stretch.first), teaching, info)
    for run in runs:
        if run.fit.phases:
            yield _phases(recipes[run.role], info.shape)
    yield _schedule(runs, info.sizes["train"], devices)
    if experiment.data.sampling != "instance":
        yield Text(_drawn(experiment.data.sampling, dataset.open("train").labels))
    theirs = experiment.published
    if theirs is not None:
        yield Text(f"published: {theirs.student:.2f}%, {theirs.source}; {RULES[theirs.rule]}")


def _networks(models: Mapping[str, Model], shape: tuple[int, int, int]) -> Table:
    table = titled("networks")
    table.add_column("")
    table.add_column("type")
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


def _terms(recipe: Recipe, teacher: Model, info: DataInfo) -> Table:
    """What each loss of a phase compares, through which adapter."""
    run, stretch, shape = recipe.run, recipe.stretch, info.shape
    several = f", phase {recipe.number + 1}" if len(recipe.stretches) > 1 else ""
    table = titled(f"losses of the {run.role}{several}")
    for column in ("term", "weight", "compares (student ← teacher)"):
        table.add_column(column)
    table.add_column("trained adapter parameters", justify="right")
    adapters = adapter_shapes(recipe.every, run.model, teacher, shape)
    student, target = output_shapes(run.model, shape), output_shapes(teacher, shape)
    for name, adapter, term in zip(stretch.names, stretch.adapters, stretch.terms, strict=True):
        taps = [
            f"{ours} {_by(student.features[ours])} ← {theirs} {_by(target.features[theirs])}"
            for ours, theirs in term.loss.taps(student, target)
        ]
        own = {"adapters": {adapter: adapters.get(adapter, {}).get("params", {})}}
        count = count_of(stretch.moving(own))
        ramp = term.schedule
        moves = f" × {ramp.start:g}…{ramp.stop:g} ({ramp.shape})" if ramp else ""
        reads = "\n".join(taps) or "outputs"
        table.add_row(name, f"{term.weight:g}{moves}", reads, f"{count:,}")
    return table


def _drawn(sampling: Sampling, labels: np.ndarray) -> str:
    """How often an example is drawn in an epoch, on average."""
    sizes = np.unique(labels, return_counts=True)[1]
    shares = class_shares(sizes, sampling)
    times = shares * len(labels) / sizes
    small, large = sizes.argmin(), sizes.argmax()
    return (
        f"sampling by {sampling}: an epoch draws {len(labels):,} training images, each of the "
        f"smallest class ({sizes[small]:,}) {times[small]:.3g} times and of the largest "
        f"({sizes[large]:,}) {times[large]:.3g} times on average"
    )


def _phases(recipe: Recipe, shape: Shape) -> Table:
    """What each phase of a run trains, and how."""
    table = titled(f"phases of the {recipe.run.role}")
    for column in ("", "steps", "trained", "frozen"):
        table.add_column(column, justify="right")
    table.add_column("trains", no_wrap=True)
    for column in ("optimizer", "learning rate"):
        table.add_column(column)
    params = shapes(recipe, shape).params
    for stretch in recipe.stretches:
        part = recipe.at(stretch.first)
        trained = count_of(stretch.moving(params))
        rates = [part.schedule()(step) for step in (stretch.first, stretch.stop - 1)]
        table.add_row(
            f"{part.number + 1}",
            f"{stretch.first:,} to {stretch.stop:,}",
            f"{trained:,}",
            f"{count_of(params) - trained:,}",
            "\n".join(_trains(stretch.phase, params)),
            getattr(part.optimizer, "method", type(part.optimizer).__name__),
            f"{float(rates[0]):.3g} … {float(rates[1]):.3g}",
        )
    return table


def _trains(phase: Phase, params: Mapping[str, Any]) -> Iterator[str]:
    """A line for each part that a phase trains, leaves out, or treats otherwise."""
    for path in phase.train:
        if path != "adapters" or params["adapters"]:
            yield path
    yield from (f"without {path}" for path in phase.freeze)
    for group in phase.groups:
        decay = f", decay × {group.decay:g}" if group.decay != 1.0 else ""
        yield f"{group.path} × {group.rate:g}{decay}"
    if phase.layer_decay != 1.0:
        yield f"× {phase.layer_decay:g} a layer"


def _by(feature: Any) -> str:
    """`32x32x16`: the shape for one image."""
    return "x".join(map(str, feature.shape[1:]))


def _schedule(runs: list[Run], examples: int, devices: Devices) -> Table:
    table = titled(f"runs on {devices.count} x {devices.all[0].device_kind}")
    table.add_column("")
    for column in ("epochs", "steps", "batch", "batch per device"):
        table.add_column(column, justify="right")
    for run in runs:
        batch = run.fit.batch_size
        devices.check_batch(f"{field_of(run.role)}.fit.batch_size", batch, run.fit.accumulate)
        steps = Recipe.of(run, None, examples).steps
        per_device = batch // devices.count
        table.add_row(run.role, f"{run.fit.epochs:g}", f"{steps:,}", f"{batch}", f"{per_device}")
    return table
