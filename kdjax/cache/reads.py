"""What of a teacher's outputs a loss reads, seen from its trace; so no loss has to say it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from kdjax.experiment import Cache
from kdjax.experiment.objective import Term
from kdjax.losses import DistillationLoss
from kdjax.models import Model
from kdjax.models.summary import Shape, output_shapes
from kdjax.types import Batch, Outputs


def reads(loss: DistillationLoss, student: Model, teacher: Model, shape: Shape) -> set[str]:
    """Fields of the teacher's `Outputs` that the loss depends on, among them `classifier`."""
    ours, theirs = output_shapes(student, shape), output_shapes(teacher, shape)

    def value(teacher: Outputs, student: Outputs) -> jax.Array:
        keys = {"params": jax.random.key(0), "loss": jax.random.key(0)}
        return loss.init_with_output(keys, student, teacher, _batch(shape))[0]

    trace = jax.make_jaxpr(value)(theirs, ours)
    needed = _needed(trace.jaxpr)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(theirs)]
    inputs = zip(paths, trace.jaxpr.invars, strict=False)
    found = {path[0].name for path, variable in inputs if variable in needed}
    return found | ({"classifier"} if loss.reads_classifier else set())


def check_reads(
    where: str, terms: Sequence[Term], cache: Cache, student: Model, teacher: Model, shape: Shape
) -> None:
    """Raise ValueError for the first term that reads what is not kept."""
    kept = {"logits", "classifier"} | ({"embedding"} if cache.embedding else set())
    for i, term in enumerate(terms):
        if not term.loss.needs_teacher:
            continue
        missing = sorted(reads(term.loss, student, teacher, shape) - kept)
        if missing:
            only = missing == ["embedding"]
            remedy = "set teacher.cache.embedding" if only else "leave out teacher.cache"
            what = "embedding" if only else "feature maps"
            raise ValueError(
                f"{where}.{i}: {type(term.loss).__name__} reads the teacher's {what}, which "
                f"teacher.cache does not keep; {remedy}, or this loss."
            )


def _needed(jaxpr: Jaxpr) -> set:
    """Variables that the results depend on; an equation needs all its inputs or none."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(v for v in equation.invars if not isinstance(v, Literal))
    return needed


def _batch(shape: Shape) -> Batch:
    zero = jnp.zeros((1,), jnp.int32)
    image = jnp.zeros((1, *shape), jnp.uint8)
    return Batch(image, zero, zero, zero, zero, jnp.ones((1,), bool))
