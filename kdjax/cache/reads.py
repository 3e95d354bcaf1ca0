"""What of a teacher's outputs a loss reads, seen from its trace; so no loss has to say it."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from kdjax.data.augment import mixing_among
from kdjax.experiment import Cache, Run
from kdjax.experiment.objective import Term
from kdjax.experiment.runs import field_of
from kdjax.losses import DistillationLoss
from kdjax.models import Model
from kdjax.models.summary import Shape, needed, output_shapes
from kdjax.types import Batch, Outputs

ANSWERS = {"logits", "classifier"}
"""What is always there: the teacher's logits, and its last layer, which is no output."""


def reads(loss: DistillationLoss, student: Model, teacher: Model, shape: Shape) -> set[str]:
    """Fields of the teacher's `Outputs` that the loss depends on, among them `classifier`."""
    ours, theirs = output_shapes(student, shape), output_shapes(teacher, shape)

    def value(teacher: Outputs, student: Outputs) -> jax.Array:
        keys = {"params": jax.random.key(0), "loss": jax.random.key(0)}
        return loss.init_with_output(keys, student, teacher, _batch(shape))[0]

    trace = jax.make_jaxpr(value)(theirs, ours)
    used = needed(trace.jaxpr)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(theirs)]
    inputs = zip(paths, trace.jaxpr.invars, strict=False)
    found = {path[0].name for path, variable in inputs if variable in used}
    return found | ({"classifier"} if loss.reads_classifier else set())


def check_reads(
    where: str, terms: Sequence[Term], cache: Cache, student: Model, teacher: Model, shape: Shape
) -> None:
    """Raise ValueError for the first term that reads what is not kept."""
    kept = ANSWERS | ({"embedding"} if cache.embedding else set())
    for i, name, missing in _readers(terms, kept, student, teacher, shape):
        only = missing == {"embedding"}
        remedy = "set teacher.cache.embedding" if only else "leave out teacher.cache"
        raise ValueError(
            f"{where}.{i}: {name} reads the teacher's {_words(missing)}, which teacher.cache does "
            f"not keep; {remedy}, or this loss."
        )


def check_mixed(run: Run, terms: Sequence[Term], teacher: Model | None, shape: Shape) -> None:
    """Raise ValueError for the first term that reads more of a teacher than can be mixed.

    A teacher that has views of its own sees no mixture: its answers are mixed, and no more.
    """
    mixing = mixing_among(run.data.augment)
    if mixing is None or run.data.teacher_augment is None or teacher is None:
        return
    for i, name, missing in _readers(terms, ANSWERS, run.model, teacher, shape):
        raise ValueError(
            f"{field_of(run.role)}.losses.{i}: {name} reads the teacher's {_words(missing)}, and "
            f"with data.teacher_augment it says no more of the mixtures of {mixing} than its "
            f"answers to both images; leave out data.teacher_augment, {mixing} or this loss."
        )


def _readers(
    terms: Sequence[Term], kept: set[str], student: Model, teacher: Model, shape: Shape
) -> Iterator[tuple[int, str, set[str]]]:
    """Place and name of the terms that read more than this of the teacher, and what."""
    for i, term in enumerate(terms):
        if term.loss.needs_teacher:
            missing = reads(term.loss, student, teacher, shape) - kept
            if missing:
                yield i, type(term.loss).__name__, missing


def _words(missing: set[str]) -> str:
    return "embedding" if missing == {"embedding"} else "feature maps"


def _batch(shape: Shape) -> Batch:
    zero = jnp.zeros((1,), jnp.int32)
    image = jnp.zeros((1, *shape), jnp.uint8)
    return Batch(image, zero, zero, zero, zero, jnp.ones((1,), bool))
