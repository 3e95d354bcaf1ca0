"""A training run in numbers: everything its cost depends on but the chip."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax

from kdjax.cache.answers import record
from kdjax.cache.reads import check_reads
from kdjax.data.sources import IN_MEMORY_BYTES
from kdjax.experiment import Cache, Experiment, Run
from kdjax.experiment.rules import check_cache
from kdjax.experiment.runs import baseline_run, chain, teacher_run
from kdjax.jobs.cache import views_of
from kdjax.models import Model
from kdjax.models.summary import Shape, abstract_variables, parameter_count, stage_shapes
from kdjax.outlook.layers import Layer, layers_of
from kdjax.training.beginning import shapes
from kdjax.training.feed import RESIDENT_BYTES
from kdjax.training.recipe import Recipe

TOP_K = 10
"""Of the sparse cache whose size is told."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is computed for an image, and in which precision."""

    layers: tuple[Layer, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 2 if self.dtype == "bfloat16" else 4


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One run. Sizes are bytes."""

    role: str
    student: Network
    teacher: Network | None = None
    """The network that is asked in every step; None: there is none, or its answers are kept."""
    batch: int
    """Images in the global batch, which the number of chips does not change."""
    accumulate: int = 1
    steps: int
    steps_per_checkpoint: float
    examples: int
    shape: Shape
    parameters: int
    """Trained numbers, of which a gradient is reduced."""
    state: int
    """Everything a checkpoint holds, the same on every chip."""
    teacher_size: int = 0
    synchronised: int = 0
    """Layers that normalise over the global batch."""
    resident: bool = False
    """The whole set lies on every chip."""
    decoded: bool = False
    """Images are decoded over and over, for they do not fit into the hosts' memory."""
    answers: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)
    """What keeping the teacher's answers for all views takes, dense and sparse; empty: they cannot
    be kept."""

    @property
    def pixels(self) -> int:
        """Numbers, and bytes, of one image."""
        return math.prod(self.shape)

    def without_teacher(self) -> "Workload":
        """The run with the answers read from disk."""
        return dataclasses.replace(self, teacher=None, teacher_size=0)


def workloads(
    experiment: Experiment, teacher: Model, shape: Shape, examples: int
) -> dict[str, Workload]:
    """Every run of the job by role, in order; a teacher that is there is not trained again."""
    runs: list[tuple[Run, Model | None]] = []
    if experiment.teacher.run is None:
        runs.append((teacher_run(experiment), None))
    runs += chain(experiment, teacher, shape)
    if experiment.baseline:
        runs.append((baseline_run(experiment, teacher, shape), None))
    resident = experiment.runtime.resident
    return {run.role: workload(run, model, shape, examples, resident) for run, model in runs}


def workload(
    run: Run, teacher: Model | None, shape: Shape, examples: int, resident: bool | None = None
) -> Workload:
    """One run on so many training images; nothing is allocated."""
    recipe = Recipe.of(run, teacher, examples)
    asked = teacher if any(term.loss.needs_teacher for term in recipe.every) else None
    online = None if run.cache.directory else asked
    set_size = examples * math.prod(shape)
    few = set_size <= RESIDENT_BYTES if resident is None else resident
    state = shapes(recipe, shape)
    return Workload(
        role=run.role,
        student=_network(run.model, shape),
        teacher=_network(online, shape) if online else None,
        batch=run.fit.batch_size,
        accumulate=run.fit.accumulate,
        steps=recipe.steps,
        steps_per_checkpoint=run.fit.eval_every * recipe.steps_per_epoch,
        examples=examples,
        shape=shape,
        parameters=parameter_count(run.model, shape),
        state=_bytes(state),
        teacher_size=_bytes(abstract_variables(online, shape)) if online else 0,
        synchronised=_normalised(state.stats["student"]) if run.model.sync_batch_norm else 0,
        resident=few and set_size <= IN_MEMORY_BYTES,
        decoded=set_size > IN_MEMORY_BYTES,
        answers=_answers(run, asked, shape, examples) if asked else {},
    )


def _network(model: Model, shape: Shape) -> Network:
    return Network(layers=layers_of(model, shape), dtype=model.dtype)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _normalised(stats: Any) -> int:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(stats)]
    return sum(path[-1].key == "mean" for path in paths)


def _answers(run: Run, teacher: Model, shape: Shape, examples: int) -> dict[str, int]:
    terms = Recipe.of(run, teacher, examples).every
    try:
        check_cache(Cache(directory="any"), run.data)
        check_reads("", terms, run.cache, run.model, teacher, shape)
    except ValueError:  # of endless views, or it reads feature maps, which nobody keeps
        return {}
    width = stage_shapes(teacher, shape)["embedding"][0]
    views, classes = views_of(run, teacher, examples), teacher.num_classes
    kept = {"dense": Cache()}
    if classes > TOP_K:
        kept[f"top-{TOP_K}"] = Cache(top_k=TOP_K)
    return {n: views * examples * record(c, classes, width).itemsize for n, c in kept.items()}
