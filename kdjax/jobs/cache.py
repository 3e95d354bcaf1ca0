"""A teacher's answers, built ahead of the runs that read them, verified and described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.cache.answers import error_bound
from kdjax.cache.filling import finish
from kdjax.cache.origin import check_same, origin_of, views_needed
from kdjax.cache.reads import check_mixed, check_reads
from kdjax.cache.store import Part, Store, create, manifest_of
from kdjax.data.pipeline import prefetch
from kdjax.data.sources import DataInfo, Source
from kdjax.evaluation.load import Loaded, as_teacher
from kdjax.evaluation.of_run import open_data, open_experiment_data
from kdjax.experiment import Experiment, Run
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import distilled, field_of, student_run
from kdjax.models import Model
from kdjax.models.summary import stage_shapes
from kdjax.progress import tracked
from kdjax.training.answers import Ask, KeptTeacher, make_ask
from kdjax.training.parallel import Devices
from kdjax.training.processes import connect, from_first, meet
from kdjax.training.recipe import Recipe
from kdjax.training.run_directory import RunDirectory
from kdjax.training.state import Fixed
from kdjax.types import Batch

SAMPLE = 256
"""Examples whose answers are asked for again by `verify`."""
TOLERANCE = 2e-3
"""By how much an answer may differ, as a share of the largest logit: twice float16's rounding."""


def check(run: Run, teacher: Model, info: DataInfo) -> None:
    """Raise ValueError unless the run could do with what it wants kept; touches nothing."""
    if run.cache.directory is None:
        return
    k, classes = run.cache.top_k, teacher.num_classes
    if k is not None and not 1 <= k < classes:
        raise ValueError(
            f"teacher.cache.top_k: {k}, but the teacher knows {classes} classes; give at least 1 "
            "and fewer than that, or leave it out."
        )
    terms = Recipe.of(run, teacher, info.sizes["train"]).every
    where = f"{field_of(run.role)}.losses"
    check_reads(where, terms, run.cache, run.model, teacher, info.shape)
    check_mixed(run, terms, teacher, info.shape)


def kept_teacher(run: Run, teacher: Loaded, info: DataInfo) -> KeptTeacher | None:
    """The answers a run reads, and adds what is missing to; None if it asks in every step."""
    if run.cache.directory is None:
        return None
    store = _store(run, teacher, info)
    views = views_of(run, teacher.model, info.sizes["train"])
    missing = from_first(sum(store.find(part) is None for part in store.parts(views)))
    if missing and jax.process_count() > 1:
        raise ValueError(
            f"teacher.cache.directory: {missing} files are missing in {store.directory}, and "
            "several processes cannot add them while they train; run `kdjax cache build` first."
        )
    return KeptTeacher(store, teacher.variables)


def build(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    """Ask the teacher of an experiment for every answer its first student will want.

    The teacher is `teacher.run`, or the one in `workdir`. What is there already is left; several
    processes share the work, each on its own devices. Raises ValueError for what the user can mend.
    """
    validate(experiment)
    if experiment.teacher.cache.directory is None:
        raise ValueError("teacher.cache.directory is not set; say where to build the cache.")
    run_path = Path(experiment.teacher.run or workdir / "teacher")
    if not RunDirectory(run_path).exists:
        raise ValueError(
            f"{run_path} holds no teacher; train it with `kdjax train PRESET --workdir {workdir}`, "
            "or name another with --teacher.run."
        )
    connect(experiment.runtime.processes)
    dataset = open_experiment_data(experiment)
    teacher = as_teacher(run_path, experiment.teacher.checkpoint, dataset.info)
    role = next(iter(distilled(experiment)))
    run = student_run(experiment, teacher.model, dataset.info.shape, None, role)
    check(run, teacher.model, dataset.info)
    store, source = _store(run, teacher, dataset.info), dataset.open("train")
    devices = Devices()
    size = -(-experiment.runtime.eval_batch_size // len(devices.local)) * len(devices.local)
    fixed = Fixed(devices.replicate(teacher.variables))
    ask = make_ask(store.origin, store.record, devices, fixed)
    views = views_of(run, teacher.model, len(source))
    mine = missing_parts(store, views, jax.process_index(), jax.process_count())
    built = _built(mine, store, source, size, ask)
    if jax.process_index() == 0:
        built = tracked(built, len(mine), "answers are asked for")
    for part, records in built:
        finish(store, part, records)
    meet("cache built")
    return describe(store.directory)


def missing_parts(store: Store, views: int, process: int, processes: int) -> list[Part]:
    """What one of several processes has to build.

    All is shared out before anybody looks what is there, since the others write meanwhile.
    """
    return [part for part in store.parts(views)[process::processes] if store.find(part) is None]


def views_of(run: Run, teacher: Model, examples: int) -> int:
    """Different views of an example that a run shows."""
    recipe = Recipe.of(run, teacher, examples)
    last = recipe.steps * run.fit.batch_size - 1
    epochs = last // run.data.views // examples + 1
    data = run.data
    augment = data.augment if data.teacher_augment is None else data.teacher_augment
    return views_needed(data, epochs, augment)


def verify(directory: Path) -> dict[str, Any]:
    """Read every file and ask for a sample of the answers again; ValueError if one is wrong.

    Needs the teacher's run and the data where they were when the cache was begun.
    """
    store = Store(directory)
    manifest, origin = store.manifest, store.origin
    found = [part for part, _ in store.files()]
    if not found:
        raise ValueError(f"{directory} has no answers yet; `kdjax cache build` asks for them.")
    for part in tracked(found, len(found), "reading"):
        store.load(part)
    dataset = open_data(manifest.data, ("train",))
    teacher = as_teacher(manifest.teacher, str(manifest.step), dataset.info)
    if teacher.digest != origin.teacher:
        raise ValueError(f"{teacher.directory}: its weights are no longer those of {directory}.")
    batch = _sample(store, found)
    devices, source = Devices(count=1), dataset.open("train")
    image, label = source.read(batch.index)
    ask = make_ask(origin, store.record, devices, Fixed(devices.replicate(teacher.variables)))
    again = ask(batch._replace(image=image, label=label))
    worst = _difference(again, store.read(batch.view, batch.index))
    if worst > TOLERANCE:
        raise ValueError(
            f"{directory}: answers differ from the teacher's by {worst:.2%} of the largest logit; "
            "delete it, and build it again."
        )
    return {**describe(directory), "asked again": len(batch.index), "largest difference": worst}


def describe(directory: Path) -> dict[str, Any]:
    """What a cache holds, from its files alone."""
    store = Store(directory)
    manifest, data, files = store.manifest, store.origin.data, list(store.files())
    views, parts = store.views(), len(store.parts(1))
    facts: dict[str, Any] = {
        "teacher": f"{manifest.teacher}, step {manifest.step}",
        "data": f"{data.name}, {store.origin.split}, {manifest.examples:,} examples",
        "kept": ", ".join(store.record.names or ()),
        "bytes an example": store.record.itemsize,
        "views": views,
        "files": f"{len(files):,} of {views * parts:,}",
        "bytes": sum(path.stat().st_size for _, path in files),
    }
    if store.origin.top_k is not None and files:
        records, classes = store.load(files[0][0]), store.origin.model.num_classes
        for temperature in (1.0, 2.0, 4.0):
            bound = error_bound(records, classes, temperature)
            text = f"mean {bound.mean():.2e}, largest {bound.max():.2e}"
            facts[f"off by at most, T={temperature:g}"] = text
    return facts


def _store(run: Run, teacher: Loaded, info: DataInfo) -> Store:
    directory = Path(run.cache.directory or "")
    manifest = manifest_of(
        origin_of(run, teacher.digest, teacher.model, info),
        examples=info.sizes["train"],
        width=stage_shapes(teacher.model, info.shape)["embedding"][0],
        teacher=str(teacher.directory.absolute()),
        step=teacher.step,
        data=run.data,
    )
    if jax.process_index() == 0:
        create(directory, manifest)
    from_first(True)
    store = Store(directory)
    check_same(str(directory), store.origin, manifest.origin)
    return store


def _built(
    parts: list[Part], store: Store, source: Source, size: int, ask: Ask
) -> Iterator[tuple[Part, np.ndarray]]:
    """Each part with its records, in batches of one size: the last is filled with copies."""
    for part in parts:
        examples = store.examples(part)
        batches = prefetch(_batches(part.view, examples, source, size))
        records = np.concatenate([ask(batch) for batch in batches])
        yield part, records[: len(examples)]


def _batches(view: int, examples: np.ndarray, source: Source, size: int) -> Iterator[Batch]:
    for start in range(0, len(examples), size):
        index = np.resize(examples[start : start + size], size)
        image, label = source.read(index)
        yield _named(index, np.full(size, view))._replace(image=image, label=label)


def _named(index: np.ndarray, view: np.ndarray) -> Batch:
    zeros, mask = np.zeros(len(index), np.int32), np.ones(len(index), bool)
    return Batch(None, None, index.astype(np.int32), zeros, view.astype(np.int32), mask)


def _sample(store: Store, parts: list[Part]) -> Batch:
    """Examples from all over, the same each time."""
    rng = np.random.default_rng(0)
    chosen = [parts[i] for i in rng.integers(0, len(parts), SAMPLE)]
    index = np.array([rng.choice(store.examples(part)) for part in chosen])
    return _named(index, np.array([part.view for part in chosen]))


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of the logits, as a share of the largest of them."""
    name = "logits" if "logits" in (ours.dtype.names or ()) else "values"
    one, other = (x[name].astype(np.float64) for x in (ours, theirs))
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-6))
