"""Every loss against its formula in float64 NumPy, its laws, and one contract over the union."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kdjax.losses import (
    AttentionTransfer,
    CrossEntropy,
    DistillationLoss,
    FitNet,
    Loss,
    Ramp,
    SoftTarget,
    Term,
    term_names,
)
from kdjax.types import AXIS, Batch, Outputs

CLASSES, EXAMPLES = 5, 4

STUDENT_MAPS = {"stage1": (4, 6, 3), "stage2": (4, 4, 3), "odd": (5, 7, 2), "flat": (4, 4, 3)}
TEACHER_MAPS = {"stage1": (4, 6, 4), "stage2": (4, 4, 2), "half": (2, 3, 4), "flat": (4, 4, 3)}
TEACHER_MAPS |= {"double": (8, 12, 2), "smaller": (3, 4, 2), "odd": (5, 7, 3)}

# --- The formulas, in float64 NumPy ------------------------------------------------------------


def np_log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def np_cross_entropy(loss, student, teacher, labels, own):
    log_p = np_log_softmax(student["logits"])
    hard = -log_p[np.arange(len(labels)), labels]
    return (1 - loss.label_smoothing) * hard - loss.label_smoothing * log_p.mean(axis=-1)


def np_soft_target(loss, student, teacher, labels, own):
    t = loss.temperature
    log_t, log_s = np_log_softmax(teacher["logits"] / t), np_log_softmax(student["logits"] / t)
    return t**2 * np.sum(np.exp(log_t) * (log_t - log_s), axis=-1)


def np_pool(x, height, width):
    rows = np_windows(x.shape[1], height)
    columns = np_windows(x.shape[2], width)
    return np.array([[x[:, r, c].mean(axis=(1, 2)) for c in columns] for r in rows]).transpose(
        2, 0, 1, 3
    )


def np_windows(size, parts):
    return [
        slice(int(np.floor(i * size / parts)), int(np.ceil((i + 1) * size / parts)))
        for i in range(parts)
    ]


def np_attention_transfer(loss, student, teacher, labels, own):
    total = 0.0
    for ours, theirs in zip(loss.stages, loss.teacher_stages or loss.stages, strict=True):
        f_s, f_t = student[ours], teacher[theirs]
        smaller = np.minimum(f_s.shape[1:3], f_t.shape[1:3])
        q = []
        for f in (np_pool(f_s, *smaller), np_pool(f_t, *smaller)):
            energy = np.mean(np.abs(f) ** loss.p, axis=-1).reshape(len(f), -1)
            q.append(energy / np.linalg.norm(energy, axis=-1, keepdims=True))
        gap = q[0] - q[1]
        total = total + (
            np.mean(gap**2, axis=-1) if loss.variant == "code" else np.linalg.norm(gap, axis=-1)
        )
    return total


def np_conv(x, kernel, bias, stride, pads):
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::stride, ::stride], kernel) + bias


def np_fitnet(loss, student, teacher, labels, own):
    f_s, f_t = student[loss.stage], teacher[loss.teacher_stage or loss.stage]
    kernel, bias, scale, shift = (
        own[k] for k in ("conv/kernel", "conv/bias", "bn/scale", "bn/bias")
    )
    ours, theirs = f_s.shape[1:3], f_t.shape[1:3]
    if ours == theirs:
        x = np_conv(f_s, kernel, bias, 1, (1, 1))
    elif ours == (2 * theirs[0], 2 * theirs[1]):
        x = np_conv(f_s, kernel, bias, 2, (1, 1))
    elif (2 * ours[0], 2 * ours[1]) == theirs:
        spread = np.zeros((len(f_s), 2 * ours[0] - 1, 2 * ours[1] - 1, f_s.shape[-1]))
        spread[:, ::2, ::2] = f_s
        x = np_conv(spread, kernel, bias, 1, (2, 2))
    else:
        x = np_conv(f_s, kernel, bias, 1, (0, 0))
    x = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5) * scale + shift
    return np.mean((np.maximum(x, 0) - f_t) ** 2, axis=(1, 2, 3))


FORMULAS = {
    CrossEntropy: np_cross_entropy,
    SoftTarget: np_soft_target,
    AttentionTransfer: np_attention_transfer,
    FitNet: np_fitnet,
}

CASES = {
    "cross_entropy": CrossEntropy(),
    "cross_entropy_smoothed": CrossEntropy(label_smoothing=0.3),
    "soft_target": SoftTarget(),
    "soft_target_at_one": SoftTarget(temperature=1.0),
    "attention_code": AttentionTransfer(),
    "attention_paper": AttentionTransfer(variant="paper"),
    "attention_cubed": AttentionTransfer(p=3.0),
    "attention_of_absolute_values": AttentionTransfer(p=1.0, variant="paper"),
    "attention_from_larger": AttentionTransfer(
        stages=("stage1", "odd"), teacher_stages=("half", "smaller")
    ),
    "attention_to_larger": AttentionTransfer(
        stages=("stage1",), teacher_stages=("double",), variant="paper"
    ),
    "fitnet_same": FitNet(),
    "fitnet_half": FitNet(stage="stage1", teacher_stage="half"),
    "fitnet_double": FitNet(stage="stage1", teacher_stage="double"),
    "fitnet_a_little_larger": FitNet(stage="odd", teacher_stage="smaller"),
}

OTHER_VALUES = {
    (CrossEntropy, "label_smoothing"): 0.1,
    (SoftTarget, "temperature"): 2.0,
    (AttentionTransfer, "stages"): ("stage2", "stage1"),
    (AttentionTransfer, "teacher_stages"): ("half", "stage2"),
    (AttentionTransfer, "p"): 1.0,
    (AttentionTransfer, "variant"): "paper",
    (FitNet, "stage"): "flat",
    (FitNet, "teacher_stage"): "flat",
    (FitNet, "sync_batch_norm"): False,
}

every_kind = pytest.mark.parametrize("kind", typing.get_args(Loss), ids=lambda kind: kind.__name__)
every_case = pytest.mark.parametrize("name", CASES)


def outputs(maps, seed, examples=EXAMPLES):
    """Random outputs, most activations positive, all away from the kinks at zero."""
    rng = np.random.default_rng(seed)

    def activations(shape):
        drawn = rng.normal(0.5, 1, (examples, *shape))
        return (drawn + 0.05 * np.sign(drawn)).astype(np.float32)

    return Outputs(
        rng.normal(0, 3, (examples, CLASSES)).astype(np.float32),
        {name: activations(shape) for name, shape in maps.items()},
        activations((3,)),
    )


def batch_of(labels):
    zeros = np.zeros(len(labels), np.int32)
    return Batch(zeros, np.asarray(labels, np.int32), zeros, zeros, zeros == 0)


def example(examples=EXAMPLES):
    labels = np.arange(examples) % CLASSES
    return outputs(STUDENT_MAPS, 0, examples), outputs(TEACHER_MAPS, 1, examples), batch_of(labels)


@functools.cache
def own_variables(loss):
    """The loss's own variables, with no parameter at a value that hides mistakes."""
    shapes = jax.eval_shape(loss.init, jax.random.key(0), *example())
    rng = np.random.default_rng(2)
    draw = lambda leaf: rng.uniform(-0.5, 1.0, leaf.shape).astype(leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


def is_free(loss):
    return not jax.tree.leaves(own_variables(loss))


def value(loss, student, teacher, batch, params=None):
    """Per example, as on one device that holds the whole batch."""
    variables = dict(own_variables(loss))
    if params is not None:
        variables["params"] = params
    alone = loss.clone(sync_batch_norm=False) if isinstance(loss, FitNet) else loss
    return alone.apply(variables, student, teacher, batch, mutable=["batch_stats"])[0]


def on_device(tree):
    return jax.tree.map(jnp.asarray, tree)


def as_float64(student, teacher, params):
    """What the formulas read: dictionaries of float64 arrays."""
    sides = [{"logits": out.logits, **out.features} for out in (student, teacher)]
    flat = jax.tree_util.tree_leaves_with_path(params)
    own = {"/".join(key.key for key in path): leaf for path, leaf in flat}
    return [{k: np.asarray(v, np.float64) for k, v in side.items()} for side in (*sides, own)]


def finite_differences(function, arrays, step=1e-6):
    """The gradient of a scalar function of a dictionary of arrays, by central differences."""
    gradients = {}
    for name, array in arrays.items():
        gradient = np.zeros_like(array)
        for i in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = array.copy()
                moved[i] += sign * step
                ends.append(function({**arrays, name: moved}))
            gradient[i] = (ends[0] - ends[1]) / (2 * step)
        gradients[name] = gradient
    return gradients


def agree(ours, expected, tolerance=1e-5):
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= tolerance * np.abs(expected).max()


def test_every_loss_has_a_formula_and_a_case():
    kinds = set(typing.get_args(Loss))
    assert set(FORMULAS) == kinds
    assert {type(loss) for loss in CASES.values()} == kinds


@every_case
def test_value_is_the_formula(name):
    loss = CASES[name]
    student, teacher, batch = example()
    params = own_variables(loss).get("params", {})
    s, t, own = as_float64(student, teacher, params)
    expected = FORMULAS[type(loss)](loss, s, t, batch.label, own)
    agree(value(loss, *on_device((student, teacher, batch))), expected)


@every_case
def test_gradient_is_the_slope_of_the_formula(name):
    loss = CASES[name]
    student, teacher, batch = example()
    params = own_variables(loss).get("params", {})
    read = {ours for ours, _ in loss.taps()} or {"logits"}
    weights = np.array([1.0, -2.0, 0.5, 3.0])

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(student, params):
        return jnp.dot(value(loss, student, teacher, batch, params), weights)

    by_student, by_params = gradients(on_device(student), params)
    ours_s, _, ours_own = as_float64(by_student, by_student, by_params)
    s, t, own = as_float64(student, teacher, params)
    formula = functools.partial(FORMULAS[type(loss)], loss)
    expected = finite_differences(
        lambda moved: weights @ formula({**s, **moved}, t, batch.label, own),
        {name: s[name] for name in read},
    )
    for stage in read:
        agree(ours_s[stage], expected[stage])
    for stage in set(s) - read:
        assert not ours_s[stage].any()
    # The convolution's bias is removed again by the batch norm behind it: its slope is zero.
    trained = {key: array for key, array in own.items() if key != "conv/bias"}
    expected = finite_differences(
        lambda moved: weights @ formula(s, t, batch.label, {**own, **moved}), trained
    )
    for key in trained:
        agree(ours_own[key], expected[key])


# --- One contract for all ----------------------------------------------------------------------


@every_case
def test_one_float32_value_an_example(name):
    loss = CASES[name]
    student, teacher, batch = example()
    rounded = student._replace(
        features={k: jnp.asarray(v, jnp.bfloat16) for k, v in student.features.items()}
    )
    for given_student in (student, rounded):
        values = value(loss, *on_device((given_student, teacher, batch)))
        assert values.shape == (EXAMPLES,)
        assert values.dtype == jnp.float32


@every_case
def test_shards_of_a_batch_are_the_batch(name):
    loss = CASES[name]
    full = on_device(example())
    halves = jax.tree.map(lambda x: x.reshape(2, EXAMPLES // 2, *x.shape[1:]), full)

    def apply(student, teacher, batch):
        return loss.apply(own_variables(loss), student, teacher, batch, mutable=["batch_stats"])[0]

    agree(jax.vmap(apply, axis_name=AXIS)(*halves).ravel(), value(loss, *full))


@every_case
def test_an_example_does_not_see_its_batch_mates(name):
    loss = CASES[name]
    student, teacher, batch = on_device(example())
    some = jax.tree.map(lambda x: x[1:3], (student, teacher, batch))
    whole, part = value(loss, student, teacher, batch)[1:3], value(loss, *some)
    if "batch_stats" in own_variables(loss):
        assert not np.allclose(part, whole, rtol=1e-3)
    else:
        agree(part, whole)


@every_kind
def test_no_field_is_dead(kind):
    loss = next(loss for loss in CASES.values() if type(loss) is kind)
    if kind is FitNet:
        loss = loss.clone(teacher_stage="stage2")
    fields = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
    missing = fields - {field for other, field in OTHER_VALUES if other is kind}
    assert not missing, "give the new field another value in OTHER_VALUES"
    halves = jax.tree.map(lambda x: x.reshape(2, EXAMPLES // 2, *x.shape[1:]), on_device(example()))
    variables = own_variables(loss)

    @functools.partial(jax.vmap, axis_name=AXIS, in_axes=(None, 0, 0, 0))
    def apply(loss, *args):
        return loss.apply(variables, *args, mutable=["batch_stats"])[0]

    def values(loss):
        step = jax.vmap(
            lambda *args: loss.apply(variables, *args, mutable=["batch_stats"])[0], axis_name=AXIS
        )
        return step(*halves)

    for field in fields:
        other = loss.clone(**{field: OTHER_VALUES[kind, field]})
        if field == "teacher_stage":  # a map of another width needs another regressor
            variables = own_variables(other)
            other, loss = other, other.clone(teacher_stage="")
        assert not np.allclose(values(other), values(loss), rtol=1e-3), field


@every_kind
def test_a_stopped_teacher_gets_no_gradient_and_changes_none(kind):
    loss = next(loss for loss in CASES.values() if type(loss) is kind)
    student, teacher, batch = on_device(example())

    def objective(student, teacher, stop):
        teacher = jax.lax.stop_gradient(teacher) if stop else teacher
        return value(loss, student, teacher, batch).sum()

    slopes = jax.grad(objective, argnums=(0, 1))
    (stopped, none), (running, some) = (slopes(student, teacher, stop) for stop in (True, False))
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(none))
    assert any(jnp.any(leaf) for leaf in jax.tree.leaves(some)) == kind.needs_teacher
    jax.tree.map(np.testing.assert_array_equal, stopped, running)
