"""Outputs to measure losses on, and the two ways to do it: ours, and finite differences."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdjax.training.device_loss import MUTABLE, device_loss
from kdjax.types import AXIS, Batch, Outputs

CLASSES, EXAMPLES = 5, 4

STUDENT_MAPS = {"stage1": (4, 6, 3), "stage2": (4, 4, 3), "odd": (5, 7, 2), "flat": (4, 4, 3)}
STUDENT_MAPS |= {f"member{i}": (1, 1, CLASSES) for i in range(3)}
STUDENT_MAPS |= {"distillation_head": (1, 1, CLASSES), "projected": (4, 6, 4)}
TEACHER_MAPS = {"stage1": (4, 6, 4), "stage2": (4, 4, 2), "half": (2, 3, 4), "flat": (4, 4, 3)}
TEACHER_MAPS |= {"double": (8, 12, 2), "smaller": (3, 4, 2), "odd": (5, 7, 3)}
RECTIFIED = ("stage1", "stage2", "flat", "half")
"""Stages with a preactivation, drawn on its own, so that reading the wrong one is noticed."""
STUDENT_WIDTH, TEACHER_WIDTH = 3, 4
"""Of the embeddings."""

SPLIT, PER_CLASS = 10, (4, 1, 2, 1, 2)
"""Examples of the training split, of which the batch is a part, and of each of its classes."""

KEY = jax.random.key(5)
"""What random losses are measured with."""


def outputs(maps, width, seed, examples=EXAMPLES):
    """Random outputs, most activations positive, all away from the kinks at zero."""
    rng = np.random.default_rng(seed)

    def activations(shape):
        drawn = rng.normal(0.5, 1, (examples, *shape))
        return jnp.asarray(drawn + 0.05 * np.sign(drawn), jnp.float32)

    own = [name for name in maps if name != "projected"]
    out = Outputs(
        jnp.asarray(rng.normal(0, 3, (examples, CLASSES)), jnp.float32),
        {name: activations(maps[name]) for name in own},
        activations((width,)),
        {name: activations(maps[name]) for name in own if name in RECTIFIED},
    )
    # A projector comes after everything else.
    projected = {name: activations(maps[name]) for name in maps if name not in own}
    # Drawn on its own too, and of the student alone: the teacher's stages are of other widths.
    size = maps.get("stage2", (0,))
    pooled = {"stage2": activations(size)} if size[-1] == width else {}
    return out._replace(features={**out.features, **projected}, pooled=pooled)


def batch_of(labels):
    zeros = jnp.zeros(len(labels), jnp.int32)
    index = jnp.arange(len(labels), dtype=jnp.int32)
    return Batch(zeros, jnp.asarray(labels, jnp.int32), index, zeros, zeros, zeros == 0)


@functools.cache
def example(examples=EXAMPLES):
    labels = np.arange(examples) % CLASSES
    student = outputs(STUDENT_MAPS, STUDENT_WIDTH, 0, examples)
    teacher = outputs(TEACHER_MAPS, TEACHER_WIDTH, 1, examples)
    return student, teacher, batch_of(labels)


# Compiling takes far longer than running.
quickly_compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


@functools.cache
def own_variables(loss):
    """The loss's own variables, with no parameter at a value that hides mistakes.

    What it remembers is what one step over other outputs leaves.
    """
    loss = loss.for_examples(SPLIT, PER_CLASS)
    rngs = {"params": KEY, "loss": KEY}
    rng = np.random.default_rng(2)

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return rng.uniform(-0.5, 1.0, leaf.shape).astype(leaf.dtype)

    with jax.ensure_compile_time_eval():  # even while what needs them is compiled
        variables = jax.eval_shape(loss.init, rngs, *example())
        if not variables.keys() <= {"params", "batch_stats"}:  # of others the values count
            variables = quickly_compiled(loss.init)(rngs, *example())
        drawn = jax.tree.map(draw, dict(variables))
        if "memory" in variables:
            drawn["memory"] = variables["memory"]
            step = quickly_compiled(functools.partial(loss.apply, rngs=rngs, mutable=list(MUTABLE)))
            drawn["memory"] = step(drawn, *example(EXAMPLES + 2))[1]["memory"]
    return drawn | _classifier_of_teacher(loss)


def program_of(loss):
    """How it begins, and its slopes, as JAX writes them down: traced, and not compiled."""
    loss = loss.for_examples(SPLIT, PER_CLASS)
    rngs = {"params": KEY, "loss": KEY}

    def begin(rngs, *data):
        return loss.init(rngs, *data)

    def slopes(variables, rngs, *data):
        def total(student, params):
            own = {**variables, "params": params}
            return loss.apply(own, student, *data[1:], rngs=rngs, mutable=list(MUTABLE))[0].sum()

        return jax.grad(total, argnums=(0, 1))(data[0], variables.get("params", {}))

    data = rngs, *example()
    variables = dict(jax.eval_shape(begin, *data)) | _classifier_of_teacher(loss)
    spread = jax.vmap(slopes, in_axes=(None, None, 0, 0, 0), axis_name=AXIS)
    parts = parts_of(example(), 1)
    written = jax.make_jaxpr(begin)(*data), jax.make_jaxpr(spread)(variables, rngs, *parts)
    numbers = [np.asarray(x).tolist() for jaxpr in written for x in jaxpr.consts]
    return re.sub("0x[0-9a-f]+", "", f"{written} {numbers}")


def _classifier_of_teacher(loss):
    if not loss.reads_classifier:
        return {}
    rng = np.random.default_rng(4)
    kernel = rng.normal(size=(TEACHER_WIDTH, CLASSES)).astype(np.float32)
    return {"teacher": {"kernel": kernel, "bias": rng.normal(size=CLASSES).astype(np.float32)}}


def with_params(loss, params):
    return own_variables(loss) if params is None else {**own_variables(loss), "params": params}


@functools.partial(jax.jit, static_argnums=(0, 5))
def value(loss, student, teacher, batch, params=None, devices=1):
    """Of each example, or of the whole batch, as so many devices compute it."""
    loss = loss.for_examples(SPLIT, PER_CLASS)

    def apply(*part):
        if loss.whole_batch:
            part = jax.lax.all_gather(part, AXIS, tiled=True)
        variables = with_params(loss, params)
        return loss.apply(variables, *part, rngs={"loss": KEY}, mutable=list(MUTABLE))[0]

    cut = lambda x: x.reshape(devices, -1, *x.shape[1:])  # noqa: E731
    parts = jax.vmap(apply, axis_name=AXIS)(*jax.tree.map(cut, (student, teacher, batch)))
    return parts[0] if loss.whole_batch else parts.ravel()


def part_of(loss, student, teacher, batch, variables):
    """One device's part: the gradient by what its student says; what is the same on all.

    That is the value, the gradient by parameters, statistics and memory.
    """
    loss = loss.for_examples(SPLIT, PER_CLASS)

    def objective(student, params):
        return device_loss(loss, {**variables, "params": params}, student, teacher, batch, KEY)

    grad = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (part, changed), (by_student, by_params) = grad(student, variables.get("params", {}))
    total, by_params = jax.lax.psum((part, by_params), AXIS)
    stats = jax.lax.pmean(changed.get("batch_stats", {}), AXIS)
    return by_student, (total, by_params, stats, changed.get("memory", {}))


def parts_of(out, devices):
    """An equal part of the examples for each device."""
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), out)


def joined(by_student):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), by_student)


def on_devices(loss, devices, flat=(), examples=8):
    """Value, gradient by what the student says, by parameters, and memory, on real devices.

    Without the `flat` parameters, whose gradient is rounding alone.
    """
    spread = jax.pmap(
        functools.partial(part_of, loss),
        AXIS,
        in_axes=(0, 0, 0, None),
        out_axes=(0, None),
        devices=jax.devices()[:devices],
    )
    parts = parts_of(example(examples), devices)
    by_student, rest = jax.device_get(spread(*parts, own_variables(loss)))
    total, by_params, *left = rest
    return joined(by_student), total, without(by_params, flat), left


def of_all_losses(devices, own):
    """In one program, by loss: the gradient by this process's examples; what is the same on all.

    `own`: losses and their variables, by name. With several processes `devices` are all of them.
    """

    def on_one(student, teacher, batch, variables):
        parts = student, teacher, batch
        found = {name: part_of(own[name][0], *parts, variables[name]) for name in own}
        return tuple({name: pair[i] for name, pair in found.items()} for i in (0, 1))

    local = [d for d in jax.devices()[:devices] if d.process_index == jax.process_index()]
    first = jax.process_index() * len(local)
    mine = jax.tree.map(lambda x: x[first : first + len(local)], parts_of(example(8), devices))
    spread = jax.pmap(
        on_one,
        AXIS,
        in_axes=(0, 0, 0, None),
        out_axes=(0, None),
        devices=local if jax.process_count() == 1 else None,
    )
    variables = {name: variables for name, (_, variables) in own.items()}
    by_student, rest = jax.device_get(spread(*mine, variables))
    return joined(by_student), rest


def without(by_params, flat):
    """The gradients by path, but for those that are rounding alone."""
    return {name: x for name, x in flat_float64(by_params).items() if name not in flat}


def as_float64(out):
    """What the formulas read: a dictionary of float64 arrays.

    Among them `before/stage1`, a preactivation, and `pooled/stage2`.
    """
    parts = {"before": out.preactivations, "pooled": out.pooled}
    other = {f"{part}/{k}": array for part, maps in parts.items() for k, array in maps.items()}
    named = {"logits": out.logits, "embedding": out.embedding, **out.features, **other}
    return {name: np.asarray(array, np.float64) for name, array in named.items()}


def flat_float64(tree, prefix=""):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        prefix + "/".join(key.key for key in path): np.asarray(leaf, np.float64)
        for path, leaf in leaves
    }


def finite_differences(function, arrays, step=6e-6, most=None):
    """The gradient of a scalar function of a dictionary of arrays, by central differences.

    The step is the cube root of the precision: rounding and curvature weigh alike. Of an array of
    more than `most` numbers so many are moved, drawn at random; the others' slopes are NaN.
    """
    rng, gradients = np.random.default_rng(3), {}
    for name, array in arrays.items():
        gradient = np.full_like(array, np.nan)
        places = list(np.ndindex(array.shape))
        for i in places if most is None else rng.permutation(places)[:most].tolist():
            i = tuple(i)
            ends = []
            for sign in (1, -1):
                moved = array.copy()
                moved[i] += sign * step
                ends.append(function({**arrays, name: moved}))
            gradient[i] = (ends[0] - ends[1]) / (2 * step)
        gradients[name] = gradient
    return gradients


def error(ours, expected):
    """The largest difference, in units of the largest number expected."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    gap, size = (np.abs(x).max(initial=0) for x in (ours - expected, expected))
    with np.errstate(divide="ignore"):  # infinite where nothing was expected
        return gap / size if gap else 0.0


def agree(ours, expected, tolerance=1e-5):
    assert error(ours, expected) <= tolerance


# --- What property tests draw ------------------------------------------------------------------

law = settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a busy machine, not of the test
)
finite = st.floats(-50, 50, width=32, allow_subnormal=False)  # XLA takes those for zero
logits = arrays(np.float32, (3, CLASSES), elements=finite)
whole = st.integers(-50, 50)
whole_logits = arrays(np.float32, (3, CLASSES), elements=whole.map(float))
maps = arrays(np.float32, (3, 2, 4, 3), elements=finite)
embeddings = arrays(np.float32, (3, 4), elements=finite)

LABELS = batch_of([0, 2, 4])


def says(logits=None, stage=None, embedding=None):
    """Outputs for three examples with the given parts; the map is the stage named `flat`."""
    logits = np.zeros((3, CLASSES), np.float32) if logits is None else logits
    features = {} if stage is None else {"flat": jnp.asarray(stage)}
    embedding = jnp.zeros((3, 1)) if embedding is None else jnp.asarray(embedding)
    return Outputs(jnp.asarray(logits), features, embedding)


@functools.partial(jax.jit, static_argnums=0)
def value_and_slope(loss, student, teacher):
    """Of a loss without variables: its values, and their sum by what it reads of the student."""

    def total(student):
        values = loss.apply({}, student, teacher, LABELS)
        return values.sum(), values

    (_, values), slope = jax.value_and_grad(total, has_aux=True)(student)
    return values, slope


def values_of(loss, student, teacher):
    return value_and_slope(loss, student, teacher)[0]
