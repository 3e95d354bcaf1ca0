"""Tables for a terminal, a pipe and a job log."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kdjax.data.sources import DataInfo
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import open_experiment_data
from kdjax.experiment import Experiment, Run
from kdjax.experiment.json import to_json
from kdjax.experiment.objective import for_examples, term_names
from kdjax.experiment.runs import baseline_run, chain, field_of, teacher_run
from kdjax.jobs.derive import Comparison
from kdjax.models import Model
from kdjax.models.summary import flops, output_shapes, parameter_count, stage_shapes
from kdjax.training.parallel import Devices
from kdjax.training.recipe import Recipe
from kdjax.training.state import adapter_shapes

RULES = {"last": "last epoch", "best": "best epoch on the test set, ours beside it the last"}
"""Which epoch a published number belongs to."""


def comparison(summary: Mapping[str, Any]) -> Table:
    """The networks of a job side by side on the test split: last checkpoint before best."""
    name = summary.get("name")
    table = titled(f"{name}: top-1 on the test split" if name else "top-1 on the test split")
    table.add_column("", no_wrap=True, min_width=8)
    published = summary.get("published")
    for column in ("parameters", "FLOPs", "last", "best", "95 %", "agrees", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
        if column == "last" and published:
            table.add_column("published", justify="right", no_wrap=True)
    for role, model in summary["models"].items():
        latest, best = model["latest"], model["best"]
        low, high = best["top1_interval"]
        theirs = [_per_cent(published.get(role))] if published else []
        table.add_row(
            role,
            f"{model['parameters']:,}",
            engineering(model["flops"]),
            f"{latest['top1']:.2%}",
            *theirs,
            f"{best['top1']:.2%}",
            f"{100 * low:.1f}-{100 * high:.1f}",
            f"{best['agreement']:.1%}" if "agreement" in best else "",
            f"{model['latency_ms']['1']:.2f}",
        )
    notes = []
    if any("agreement" in model["best"] for model in summary["models"].values()):
        notes.append("95 %: interval of best; agrees: answers as the teacher; ms: one image, here")
    if published:
        notes.append(f"published: {published['source']}; {RULES[published['rule']]}")
    table.caption = "\n".join(notes)
    return table


def metrics(values: Mapping[str, Any]) -> Table:
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
    links = chain(experiment, teacher.model, info.shape)
    runs = [] if named else [teacher]
    runs += [baseline_run(experiment, teacher.model, info.shape)] if experiment.baseline else []
    runs += [run for run, _ in links]
    models = {"teacher": teacher.model, **{run.role: run.model for run, _ in links}}
    yield _networks(models, info.shape)
    for run, teaching in links:
        yield _terms(run, teaching, info)
    yield _schedule(runs, info.sizes["train"], devices)
    theirs = experiment.published
    if theirs is not None:
        yield Text(f"published: {theirs.student:.2f}%, {theirs.source}; {RULES[theirs.rule]}")


def engineering(value: float) -> str:
    """Three figures and a unit: 41.6 M."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value:.3g}"


def titled(title: str) -> Table:
    """An empty table below its title."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    return table


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


def _terms(run: Run, teacher: Model, info: DataInfo) -> Table:
    """The recipe of the distillation: what each loss compares, through which adapter."""
    table = titled(f"losses of the {run.role}")
    for column in ("term", "weight", "compares (student ← teacher)"):
        table.add_column(column)
    table.add_column("adapter parameters", justify="right")
    shape = info.shape
    terms = for_examples(run.losses, info.sizes["train"])
    adapters = adapter_shapes(terms, run.model, teacher, shape)
    student, target = output_shapes(run.model, shape), output_shapes(teacher, shape)
    for name, term in zip(term_names(terms), terms, strict=True):
        taps = [
            f"{ours} {_by(student.features[ours])} ← {theirs} {_by(target.features[theirs])}"
            for ours, theirs in term.loss.taps(student, target)
        ]
        leaves = jax.tree.leaves(adapters.get(name, {}).get("params", {}))
        count = sum(math.prod(leaf.shape) for leaf in leaves)
        ramp = term.schedule
        moves = f" × {ramp.start:g}…{ramp.stop:g} ({ramp.shape})" if ramp else ""
        reads = "\n".join(taps) or "outputs"
        table.add_row(name, f"{term.weight:g}{moves}", reads, f"{count:,}")
    return table


def _per_cent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}%"


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


def derived(networks: Mapping[str, Comparison]) -> Table:
    """Teacher and student before any training of the student."""
    table = titled("before any training")
    table.add_column("", no_wrap=True)
    for role in networks:
        table.add_column(role, justify="right")
    teacher, student = networks["teacher"], networks["student"]
    table.add_column("share", justify="right")
    for name, write in (("parameters", "{:,}".format), ("flops", engineering)):
        old, new = getattr(teacher, name), getattr(student, name)
        label = "FLOPs/image" if name == "flops" else name
        table.add_row(label, write(old), write(new), f"{new / old:.1%}")
    old, new = teacher.latency_ms, student.latency_ms
    table.add_row("ms, one image, here", f"{old:.2f}", f"{new:.2f}", f"{new / old:.1%}")
    if teacher.top1 is not None and student.top1 is not None:
        table.add_row("top-1, validation", f"{teacher.top1:.2%}", f"{student.top1:.2%}", "")
    for stage, size in teacher.stages.items():
        by = ["x".join(map(str, s)) for s in (size, student.stages[stage])]
        table.add_row(stage, *by, "")
    return table


def facts(values: Mapping[str, Any]) -> Table:
    """What is known of something, a row a fact."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    return table


def benchmark(result: Mapping[str, Any]) -> Table:
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


def mismatch(rows: Sequence[tuple[str, str, str]], most: int = 20) -> Table:
    """Why a file does not fit a network, a row a problem."""
    table = Table(box=None, padding=(0, 2), show_header=False)
    for row in rows[:most]:
        table.add_row(*row)
    if len(rows) > most:
        table.add_row("…", f"{len(rows) - most} more")
    return table
