"""What changes while a network is trained: arrays, and nothing else."""

import functools
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.experiment.importing import written_by_others
from kdjax.experiment.objective import Term, adapter_names
from kdjax.models import Model
from kdjax.training.parts import merged
from kdjax.types import Batch, Variables

T = TypeVar("T")

EXAMPLES = 2
"""Of the batch that losses are first shown: with one, a sum over the batch would not stand out."""

INITIAL_WEIGHTS = 0
"""Stream of the seed that weights are drawn from."""


class TrainState(NamedTuple):
    """One run's progress.

    `params` and `stats` hold two trees, `student` (the network being trained) and `adapters` (the
    parameters of its losses). The teacher is not part of it.

    `memory` is what losses of the whole batch remember, by term; the same on all devices as it is.
    """

    step: Array
    params: dict[str, Any]
    stats: dict[str, Any]
    frozen: dict[str, Any]
    """What the student has that no step changes: a classifier that it took over."""
    memory: dict[str, Any]
    scales: Array
    """What the weight of each term is multiplied by: ones, unless terms are balanced."""
    optimizer: Any
    ema: dict[str, Any]
    """Moving average of the student's variables; empty when none is kept."""

    def variables(self) -> Variables:
        """The student as Flax sees it."""
        return pack(self.params["student"], self.stats["student"], self.frozen)


class Fixed(NamedTuple):
    """What every step reads and none changes, on each device."""

    teacher: Variables | None = None
    """The network that teaches, if there is one."""
    images: Any = None
    """The whole training split, uint8 `[n, H, W, C]`, where it fits; batches come without then."""
    labels: Any = None
    """Its labels."""

    def look_up(self, batch: Batch) -> Batch:
        """The batch with images and labels."""
        if self.images is None:
            return batch
        return batch._replace(image=self.images[batch.index], label=self.labels[batch.index])


def pack(params: Any, stats: Any, frozen: Any) -> dict[str, Any]:
    """A variable collection; without batch norm there are no statistics, in most nothing frozen."""
    rest = {"batch_stats": stats, "frozen": frozen}
    return {"params": params, **{name: tree for name, tree in rest.items() if tree}}


def initial_variables(model: Model, shape: Sequence[int], key: Array) -> dict[str, Any]:
    """Fresh weights, drawn in one compiled call (op by op it takes longer than training digits).

    ValueError if the network has variables that a run could not keep.
    """
    variables = _drawn(_variables, (model, tuple(shape)), key)
    _check_kept(type(model).__name__, variables)
    return variables


def _variables(model: Model, shape: tuple[int, ...], key: Array) -> dict[str, Any]:
    variables: Any = model.init(key, jnp.zeros((1, *shape), jnp.uint8), train=False)
    return variables


def _drawn(init: Callable[..., T], of: tuple[Hashable, ...], key: Array) -> T:
    """`init(*of, key)`, once compiled for as often as it is asked for: student and baseline are
    drawn by one program.

    Only traced where no more than shapes are asked for.
    """
    return init(*of, key) if isinstance(key, jax.core.Tracer) else _program(init, of, key)


# It runs for milliseconds, so it is compiled in a third of the time.
@partial(jax.jit, static_argnums=(0, 1), compiler_options={"xla_backend_optimization_level": 1})
def _program(init: Callable[..., T], of: tuple[Hashable, ...], key: Array) -> T:
    return init(*of, key)


def _check_kept(name: str, variables: Variables) -> None:
    """Other collections are not in the state, and numbered layers come back under other names."""
    if extra := ", ".join(sorted(variables.keys() - {"params", "batch_stats", "frozen"})):
        raise ValueError(
            f"{name}: variables in {extra} would be lost; keep them in params, batch_stats or "
            "frozen."
        )
    for path, _ in jax.tree_util.tree_leaves_with_path(variables):
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        if len(names) < len(path) or not all(isinstance(part, str) for part in names):
            raise ValueError(
                f"{name}: {jax.tree_util.keystr(path)} cannot be kept; layers need names instead "
                "of numbers in a list (setattr(self, f'block{i}', …)), and arrays no metadata."
            )


def initial_adapters(
    terms: Sequence[Term],
    student: Model,
    teacher: Model | None,
    shape: Sequence[int],
    key: Array,
) -> dict[str, Any]:
    """Variables of the losses that have any, by term. ValueError if a tap does not fit."""
    of = tuple(terms), student, teacher, tuple(shape)
    return _drawn(_adapters, of, key) if adapter_shapes(*of) else {}


@functools.lru_cache(maxsize=64)  # a run asks when it is checked, and when it begins
def adapter_shapes(
    terms: tuple[Term, ...], student: Model, teacher: Model | None, shape: tuple[int, ...]
) -> dict[str, Any]:
    """The adapters as shapes, touching no device. ValueError if a tap does not fit."""
    key = jax.eval_shape(partial(jax.random.key, 0))
    return jax.eval_shape(partial(_adapters, terms, student, teacher, shape), key)


def _adapters(
    terms: Sequence[Term], student: Model, teacher: Model | None, shape: Sequence[int], key: Array
) -> dict[str, Any]:
    batch = dummy_batch(shape)

    def outputs(model: Model) -> Any:
        # Init in training mode would need the device axis; the shapes are the same in eval mode.
        return model.init_with_output(key, batch.image, train=False)[0]

    student_outputs = outputs(student)
    teacher_outputs = None if teacher is None else outputs(teacher)
    variables: dict[str, Any] = {}
    for i, (name, term) in enumerate(zip(adapter_names(terms), terms, strict=True)):
        rngs = {"params": jax.random.fold_in(key, i), "loss": key}
        outputs_of_both = student_outputs, teacher_outputs
        with written_by_others(type(term.loss)):
            values, drawn = term.loss.init_with_output(rngs, *outputs_of_both, batch)
        _check_values(term, values)
        variables[name] = merged(drawn, variables.get(name, {}))
        _check_shared(term, drawn, variables[name])
    return {name: v for name, v in variables.items() if v}


def _check_values(term: Term, values: Any) -> None:
    """ValueError unless a loss says one float32 for each example, or one for all."""
    wanted = () if term.loss.whole_batch else (EXAMPLES,)
    if jnp.shape(values) != wanted or jnp.result_type(values) != jnp.float32:
        what = f"{jnp.result_type(values)}{list(jnp.shape(values))}"
        one = "one number, being of the whole batch" if term.loss.whole_batch else f"{wanted}"
        raise ValueError(
            f"{type(term.loss).__name__} returns {what} for a batch of {EXAMPLES} examples; it "
            f"must be float32, {one}."
        )


def _check_shared(term: Term, drawn: Variables, shared: Variables) -> None:
    """ValueError if what a loss shares with an earlier one has other shapes there."""
    there = dict(jax.tree_util.tree_leaves_with_path(shared))
    for path, leaf in jax.tree_util.tree_leaves_with_path(drawn):
        if leaf.shape != there[path].shape:
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"{type(term.loss).__name__}: {where} would be {leaf.shape}, and is "
                f"{there[path].shape} in the loss that it shares its parameters with; give both "
                "the same fields."
            )


def dummy_batch(shape: Sequence[int], examples: int = EXAMPLES) -> Batch:
    """Black images, all of them the first one."""
    zero, image = jnp.zeros((examples,), jnp.int32), jnp.zeros((examples, *shape), jnp.uint8)
    return Batch(image, zero, zero, zero, zero, jnp.ones((examples,), bool))
