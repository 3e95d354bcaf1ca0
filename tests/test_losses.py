"""Every loss against its formula in float64 NumPy, its laws, and one contract over the union."""

import dataclasses
import functools
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdjax.losses import (
    DKD,
    WSLD,
    AttentionTransfer,
    CrossEntropy,
    DistillationLoss,
    FitNet,
    HardTarget,
    LogitMSE,
    LogitStandardization,
    Loss,
    Ramp,
    SoftTarget,
)
from kdjax.objective import Term, term_names
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


def np_label_loss(z, labels):
    return -np_log_softmax(z)[np.arange(len(z)), labels]


def np_hard_target(loss, student, teacher, labels, own):
    return np_label_loss(student["logits"], teacher["logits"].argmax(axis=-1))


def np_logit_mse(loss, student, teacher, labels, own):
    gap = student["logits"] - teacher["logits"]
    return np.linalg.norm(gap, axis=-1) ** 2 / CLASSES


def np_logit_standardization(loss, student, teacher, labels, own):
    def standard(side):
        z = side["logits"]
        spread = np.std(z, axis=-1, ddof=1, keepdims=True)
        return {"logits": (z - np.mean(z, axis=-1, keepdims=True)) / (1e-7 + spread)}

    return np_soft_target(loss, standard(student), standard(teacher), labels, own)


def np_dkd(loss, student, teacher, labels, own):
    def divergence(p, q):
        return np.sum(p * np.log(p / q))

    values = []
    for z_s, z_t, y in zip(student["logits"], teacher["logits"], labels, strict=True):
        q, p = (np.exp(np_log_softmax(z / loss.temperature)) for z in (z_s, z_t))
        tckd = divergence(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        p, q = np.delete(p, y), np.delete(q, y)
        nckd = divergence(p / p.sum(), q / q.sum())
        values.append(loss.temperature**2 * (loss.alpha * tckd + loss.beta * nckd))
    return np.array(values)


def np_wsld(loss, student, teacher, labels, own):
    # Where the gradient is measured, the student that weighs stands still.
    weighing = student.get("logits held", student["logits"])
    ratio = np_label_loss(weighing, labels) / (np_label_loss(teacher["logits"], labels) + 1e-7)
    return (1 - np.exp(-ratio)) * np_soft_target(loss, student, teacher, labels, own)


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
    HardTarget: np_hard_target,
    LogitMSE: np_logit_mse,
    LogitStandardization: np_logit_standardization,
    DKD: np_dkd,
    WSLD: np_wsld,
    AttentionTransfer: np_attention_transfer,
    FitNet: np_fitnet,
}

CASES = {
    "cross_entropy": CrossEntropy(),
    "cross_entropy_smoothed": CrossEntropy(label_smoothing=0.3),
    "soft_target": SoftTarget(),
    "soft_target_at_one": SoftTarget(temperature=1.0),
    "hard_target": HardTarget(),
    "logit_mse": LogitMSE(),
    "logit_standardization": LogitStandardization(),
    "logit_standardization_at_half": LogitStandardization(temperature=0.5),
    "dkd": DKD(),
    "dkd_target_alone": DKD(alpha=2.0, beta=0.0, temperature=1.0),
    "dkd_others_alone": DKD(alpha=0.0, beta=1.0, temperature=2.0),
    "wsld": WSLD(),
    "wsld_at_four": WSLD(temperature=4.0),
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
    (LogitStandardization, "temperature"): 1.0,
    (DKD, "alpha"): 3.0,
    (DKD, "beta"): 2.0,
    (DKD, "temperature"): 2.0,
    (WSLD, "temperature"): 4.0,
    (AttentionTransfer, "stages"): ("stage1",),
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
        return jnp.asarray(drawn + 0.05 * np.sign(drawn), jnp.float32)

    return Outputs(
        jnp.asarray(rng.normal(0, 3, (examples, CLASSES)), jnp.float32),
        {name: activations(shape) for name, shape in maps.items()},
        activations((3,)),
    )


def batch_of(labels):
    zeros = jnp.zeros(len(labels), jnp.int32)
    return Batch(zeros, jnp.asarray(labels, jnp.int32), zeros, zeros, zeros == 0)


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


@functools.partial(jax.jit, static_argnums=0)
def value(loss, student, teacher, batch, params=None):
    """Per example, as on one device that holds the whole batch."""
    variables = dict(own_variables(loss))
    if params is not None:
        variables["params"] = params
    alone = loss.clone(sync_batch_norm=False) if isinstance(loss, FitNet) else loss
    return alone.apply(variables, student, teacher, batch, mutable=["batch_stats"])[0]


@functools.partial(jax.jit, static_argnums=0)
def values_of_halves(loss, student, teacher, batch):
    """Per example, as on two devices that hold half of the batch each."""
    cut = lambda x: x.reshape(2, -1, *x.shape[1:])  # noqa: E731
    halves = jax.tree.map(cut, (student, teacher, batch))

    def apply(*half):
        return loss.apply(own_variables(loss), *half, mutable=["batch_stats"])[0]

    return jax.vmap(apply, axis_name=AXIS)(*halves).ravel()


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
    agree(value(loss, student, teacher, batch), expected)


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

    by_student, by_params = gradients(student, params)
    ours_s, _, ours_own = as_float64(by_student, by_student, by_params)
    s, t, own = as_float64(student, teacher, params)
    held = {**s, "logits held": s["logits"]}
    formula = functools.partial(FORMULAS[type(loss)], loss)
    expected = finite_differences(
        lambda moved: weights @ formula({**held, **moved}, t, batch.label, own),
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
    values = value(CASES[name], *example())
    assert values.shape == (EXAMPLES,)
    assert values.dtype == jnp.float32


@every_case
def test_bfloat16_features_are_computed_with_in_float32(name):
    def through(dtype, out):
        rounded = {k: v.astype("bfloat16").astype(dtype) for k, v in out.features.items()}
        return out._replace(features=rounded)

    student, teacher, batch = example()
    short, long = (
        value(CASES[name], through(dtype, student), through(dtype, teacher), batch)
        for dtype in ("bfloat16", "float32")
    )
    assert short.dtype == jnp.float32
    agree(short, long, tolerance=1e-6)


@every_case
def test_shards_of_a_batch_are_the_batch(name):
    agree(values_of_halves(CASES[name], *example()), value(CASES[name], *example()))


@every_case
def test_an_example_does_not_see_its_batch_mates(name):
    loss = CASES[name]
    student, teacher, batch = example()
    some = jax.tree.map(lambda x: x[1:3], (student, teacher, batch))
    whole, part = value(loss, student, teacher, batch)[1:3], value(loss, *some)
    if "batch_stats" in own_variables(loss):
        assert not np.allclose(part, whole, rtol=1e-3)
    else:
        agree(part, whole)


@every_kind
def test_no_field_is_dead(kind):
    fields = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
    missing = fields - {field for other, field in OTHER_VALUES if other is kind}
    assert not missing, "give the new field another value in OTHER_VALUES"
    default = values_of_halves(kind(), *example())
    for field in fields:
        other = kind(**{field: OTHER_VALUES[kind, field]})
        assert not np.allclose(values_of_halves(other, *example()), default, rtol=1e-3), field


@every_kind
def test_a_stopped_teacher_gets_no_gradient_and_changes_none(kind):
    loss = next(loss for loss in CASES.values() if type(loss) is kind)
    student, teacher, batch = example()

    def objective(student, teacher, stop):
        teacher = jax.lax.stop_gradient(teacher) if stop else teacher
        return value(loss, student, teacher, batch).sum()

    slopes = jax.grad(objective, argnums=(0, 1))
    (stopped, none), (running, some) = (slopes(student, teacher, stop) for stop in (True, False))
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(none))
    slopes_reach = kind.needs_teacher and kind is not HardTarget  # which reads a decision
    assert any(jnp.any(leaf) for leaf in jax.tree.leaves(some)) == slopes_reach
    # Two programs, so they may round differently.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, stopped, running)


# --- Laws ------------------------------------------------------------------------------------

law = settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a busy machine, not of the test
)
finite = st.floats(-50, 50, width=32)
logits = arrays(np.float32, (3, CLASSES), elements=finite)
whole = st.integers(-50, 50)
whole_logits = arrays(np.float32, (3, CLASSES), elements=whole.map(float))
maps = arrays(np.float32, (3, 2, 4, 3), elements=finite)


def says(logits=None, stage=None):
    """Outputs with the given parts."""
    logits = np.zeros((3, CLASSES), np.float32) if logits is None else logits
    features = {} if stage is None else {"flat": jnp.asarray(stage)}
    return Outputs(jnp.asarray(logits), features, jnp.zeros((3, 1)))


LABELS = batch_of([0, 2, 4])
ATTENTION = [
    AttentionTransfer(stages=("flat",), variant=variant, p=p)
    for variant in ("code", "paper")
    for p in (1.0, 2.0, 4.0)
]
FEATURE_LOSSES = [*ATTENTION, FitNet(stage="flat")]
LOGIT_LOSSES = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.2),
    SoftTarget(),
    HardTarget(),
    LogitMSE(),
    LogitStandardization(),
    DKD(),
    WSLD(),
]


@functools.partial(jax.jit, static_argnums=0)
def value_and_slope(loss, student, teacher):
    """Of a loss without variables, by what it reads of the student."""

    def total(student):
        values = loss.apply({}, student, teacher, LABELS)
        return values.sum(), values

    (_, values), slope = jax.value_and_grad(total, has_aux=True)(student)
    return values, slope


def values_of(loss, student, teacher):
    return value_and_slope(loss, student, teacher)[0]


@law
@given(logits, st.sampled_from([0.5, 1.0, 4.0, 20.0]))
def test_soft_target_is_zero_where_the_student_is_the_teacher(z, temperature):
    values, slope = value_and_slope(SoftTarget(temperature=temperature), says(z), says(z))
    np.testing.assert_allclose(values, 0, atol=1e-6 * temperature**2)
    np.testing.assert_allclose(slope.logits, 0, atol=1e-5 * temperature)


@law
@given(logits)
def test_teacher_logit_losses_are_zero_where_the_student_is_the_teacher(z):
    for loss in (LogitMSE(), LogitStandardization(), DKD(beta=1.0, temperature=1.0), WSLD()):
        values, slope = value_and_slope(loss, says(z), says(z))
        np.testing.assert_allclose(values, 0, atol=2e-5)
        # Equal logits are divided by next to nothing, and so is the slope's rounding.
        steep = 1 / (1e-7 + z.std(axis=-1, keepdims=True))
        scale = np.maximum(1, steep) if isinstance(loss, LogitStandardization) else 1
        np.testing.assert_allclose(slope.logits / scale, 0, atol=1e-4)


@law
@given(maps, st.sampled_from(ATTENTION), st.sampled_from([1.0, 0.25, 8.0]))
def test_attention_transfer_is_zero_where_the_student_is_the_teacher(f, loss, scale):
    """And where it is a multiple of it: the length of the map is divided out."""
    values, slope = value_and_slope(loss, says(stage=f), says(stage=f * np.float32(scale)))
    np.testing.assert_allclose(values, 0, atol=1e-6)
    if loss.variant == "code":  # the norm of the paper's has a kink there
        np.testing.assert_allclose(f * slope.features["flat"], 0, atol=1e-6)


@pytest.mark.parametrize("loss", ATTENTION, ids=lambda loss: f"{loss.variant}-{loss.p}")
@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e4, 1e15])
def test_attention_transfer_does_not_see_the_scale_of_a_map(loss, scale):
    """Not even where the power of an activation is no float32 any more."""
    rng = np.random.default_rng(0)
    f_s, f_t = rng.normal(size=(2, 3, 2, 4, 3)).astype(np.float32)
    expected = values_of(loss, says(stage=f_s), says(stage=f_t))
    factors = np.array([scale, 1, 1 / scale], np.float32).reshape(3, 1, 1, 1)
    scaled = values_of(loss, says(stage=f_s * factors), says(stage=f_t))
    np.testing.assert_allclose(scaled, expected, rtol=1e-4)


@law
@given(logits, logits)
def test_logit_losses_are_not_negative(z_s, z_t):
    for loss in LOGIT_LOSSES:
        assert values_of(loss, says(z_s), says(z_t)).min() >= -1e-4, loss


@law
@given(maps, maps)
def test_feature_losses_are_not_negative(f_s, f_t):
    student, teacher = says(stage=f_s), says(stage=f_t)
    assert min(values_of(loss, student, teacher).min() for loss in ATTENTION) >= 0
    assert value(FitNet(stage="flat"), student, teacher, LABELS).min() >= 0


@law
@given(logits, logits, finite, finite)
def test_logit_losses_do_not_see_a_common_shift(z_s, z_t, a, b):
    for loss in (CrossEntropy(label_smoothing=0.2), SoftTarget(temperature=2.0)):
        values = values_of(loss, says(z_s), says(z_t))
        shifted = values_of(loss, says(z_s + np.float32(a)), says(z_t + np.float32(b)))
        np.testing.assert_allclose(shifted, values, rtol=1e-3, atol=2e-3)


@law
@given(whole_logits, whole_logits, whole, whole)
def test_losses_of_a_decision_or_a_ratio_do_not_see_a_common_shift(z_s, z_t, a, b):
    """Whole numbers, which a shift does not round: it cannot turn a decision or a small ratio."""
    for loss in (HardTarget(), LogitStandardization(), DKD(), WSLD()):
        values = values_of(loss, says(z_s), says(z_t))
        shifted = values_of(loss, says(z_s + np.float32(a)), says(z_t + np.float32(b)))
        np.testing.assert_allclose(shifted, values, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_logit_standardization_does_not_see_the_scale_of_logits(scale):
    z_s, z_t = (np.asarray(out.logits) for out in example()[:2])
    loss = LogitStandardization()
    expected = loss.apply({}, says(z_s), says(z_t), LABELS)
    np.testing.assert_allclose(
        loss.apply({}, says(z_s * scale), says(z_t / scale), LABELS), expected, rtol=1e-4
    )


@law
@given(logits, logits, st.sampled_from([1.0, 4.0]))
def test_soft_targets_are_the_decoupled_parts_put_together(z_s, z_t, temperature):
    """Zhao et al., section 3: the teacher's doubt in the label weighs the other classes."""
    target, others = (
        values_of(DKD(alpha=alpha, beta=1 - alpha, temperature=temperature), says(z_s), says(z_t))
        for alpha in (1.0, 0.0)
    )
    doubt = -np.expm1(-np_label_loss(z_t.astype(np.float64) / temperature, [0, 2, 4]))
    expected = values_of(SoftTarget(temperature=temperature), says(z_s), says(z_t))
    np.testing.assert_allclose(target + doubt * others, expected, rtol=1e-4, atol=1e-3)


def test_weighted_soft_labels_count_by_who_does_better():
    """All of the soft targets where the teacher is right, almost none where the student is."""
    right, wrong = 20 * np.eye(CLASSES)[[0, 2, 4]], 20 * np.eye(CLASSES)[[1, 3, 0]]
    right, wrong = right.astype(np.float32), wrong.astype(np.float32)
    for z_s, z_t, weight in ((wrong, right, 1.0), (right, wrong, 0.0)):
        soft = values_of(SoftTarget(temperature=2.0), says(z_s), says(z_t))
        values = values_of(WSLD(temperature=2.0), says(z_s), says(z_t))
        np.testing.assert_allclose(values / soft, weight, atol=1e-6)


def test_hot_soft_targets_match_logits():
    """Hinton et al., section 2.1: as T grows the gradient tends to `(z_s - z_t) / classes`."""
    rng = np.random.default_rng(0)
    z_s, z_t = (rng.normal(size=(3, CLASSES)).astype(np.float32) for _ in range(2))
    limit = ((z_s - z_s.mean(-1, keepdims=True)) - (z_t - z_t.mean(-1, keepdims=True))) / CLASSES
    errors = []
    for temperature in (1.0, 10.0, 100.0):
        _, slope = value_and_slope(SoftTarget(temperature=temperature), says(z_s), says(z_t))
        errors.append(np.abs(slope.logits - limit).max())
    assert errors[2] < 0.02 * np.abs(limit).max()
    assert errors[2] < 0.2 * errors[1] < 0.1 * errors[0]


# --- Extremes: values and gradients stay finite -----------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def total_and_slopes(loss, student, teacher, batch, params):
    def total(student, params):
        return value(loss, student, teacher, batch, params).sum()

    return jax.value_and_grad(total, argnums=(0, 1))(student, params)


def check_finite(loss, student, teacher, labels):
    params = own_variables(loss).get("params", {})
    total, slopes = total_and_slopes(loss, student, teacher, batch_of(labels), params)
    assert jnp.isfinite(total)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", LOGIT_LOSSES, ids=lambda loss: type(loss).__name__)
def test_confident_logits_stay_finite(loss, dtype):
    sure = 1e4 * np.eye(3, CLASSES)
    pairs = [(sure, -sure), (-sure, sure), (sure, sure), (sure, 0 * sure), (0 * sure, sure)]
    for z_s, z_t in pairs:
        student, teacher = (says(jnp.asarray(z, dtype)) for z in (z_s, z_t))
        check_finite(loss, student, teacher, [0, 2, 4])


EXTREMES = {
    "zero": lambda rng: np.zeros((2, 4, 4, 3)),
    "one_example_zero": lambda rng: (
        rng.normal(size=(2, 4, 4, 3)) * np.array([0, 1])[:, None, None, None]
    ),
    "huge": lambda rng: 1e4 * rng.normal(size=(2, 4, 4, 3)),
    "huge_and_equal": lambda rng: np.full((2, 4, 4, 3), 1e4),
    "tiny": lambda rng: 1e-20 * rng.normal(size=(2, 4, 4, 3)),
    "ordinary": lambda rng: rng.normal(size=(2, 4, 4, 3)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", FEATURE_LOSSES, ids=lambda loss: f"{type(loss).__name__}")
def test_extreme_features_stay_finite(loss, dtype):
    rng = np.random.default_rng(0)
    drawn = {name: jnp.asarray(make(rng), dtype) for name, make in EXTREMES.items()}
    pairs = [(name, "ordinary") for name in drawn] + [("ordinary", name) for name in drawn]
    pairs += [(name, name) for name in drawn]
    for ours, theirs in pairs:
        student, teacher = (
            Outputs(jnp.zeros((2, CLASSES)), {"flat": drawn[n]}, jnp.zeros((2, 1)))
            for n in (ours, theirs)
        )
        check_finite(loss, student, teacher, [0, 1])


@every_case
def test_a_batch_of_one_stays_finite(name):
    student, teacher, _ = example(1)
    check_finite(CASES[name], student, teacher, [0])


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "loss"),
    [
        ("student", AttentionTransfer(stages=("stage9",), teacher_stages=("stage1",))),
        ("teacher", AttentionTransfer(stages=("stage1",), teacher_stages=("stage9",))),
        ("student", FitNet(stage="stage9", teacher_stage="stage1")),
        ("teacher", FitNet(stage="stage1", teacher_stage="stage9")),
    ],
)
def test_an_unknown_stage_is_named_beside_those_there_are(who, loss):
    have = ", ".join(STUDENT_MAPS if who == "student" else TEACHER_MAPS)
    message = f"{type(loss).__name__}: the {who} has no stage 'stage9'; it has {have}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        loss.init(jax.random.key(0), *example())


def test_as_many_stages_of_the_teacher_as_of_the_student():
    loss = AttentionTransfer(stages=("a", "b"), teacher_stages=("a",))
    with pytest.raises(ValueError, match="2 student stages but 1 teacher stages; give one teacher"):
        loss.taps()


@pytest.mark.parametrize("kind", [k for k in typing.get_args(Loss) if k.needs_teacher])
def test_a_loss_that_needs_a_teacher_says_so(kind):
    student, _, batch = example()
    with pytest.raises(ValueError, match=f"{kind.__name__} needs a teacher, and this run has none"):
        kind().init(jax.random.key(0), student, None, batch)


def test_the_task_needs_no_teacher():
    student, teacher, batch = example()
    assert not CrossEntropy.needs_teacher
    agree(
        value(CrossEntropy(), student, None, batch), value(CrossEntropy(), student, teacher, batch)
    )


def test_fitnet_refuses_maps_it_cannot_bring_together():
    loss = FitNet(stage="stage2", teacher_stage="double")
    with pytest.raises(ValueError, match="student's stage2 of 4x4 to the teacher's 8x12; choose"):
        loss.init(jax.random.key(0), *example())


def test_an_unfinished_loss_says_what_is_missing():
    class Unfinished(DistillationLoss):
        pass

    with pytest.raises(TypeError, match="Unfinished does not define __call__"):
        Unfinished().apply({}, *example())


# --- Taps, terms and ramps -------------------------------------------------------------------


def test_taps_pair_the_stages_in_order():
    assert {loss.taps() for loss in LOGIT_LOSSES} == {()}
    assert AttentionTransfer(stages=("a", "b")).taps() == (("a", "a"), ("b", "b"))
    other = AttentionTransfer(stages=("a", "b"), teacher_stages=("c", "d"))
    assert other.taps() == (("a", "c"), ("b", "d"))
    assert FitNet(stage="a").taps() == (("a", "a"),)
    assert FitNet(stage="a", teacher_stage="b").taps() == (("a", "b"),)


def test_a_repeated_term_is_numbered():
    losses = (
        SoftTarget(),
        CrossEntropy(),
        SoftTarget(temperature=1.0),
        AttentionTransfer(),
        FitNet(),
        SoftTarget(),
    )
    assert term_names([Term(loss) for loss in losses]) == (
        "soft_target",
        "cross_entropy",
        "soft_target_2",
        "attention_transfer",
        "fit_net",
        "soft_target_3",
    )
    assert term_names([]) == ()


EPOCHS = np.array([0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0], np.float32)


def test_ramps_move_and_stay():
    linear = Ramp(start=1.0, stop=3.0, begin=2.0, epochs=4.0)
    np.testing.assert_allclose(linear(jnp.asarray(EPOCHS)), [1, 1, 1.5, 2, 2.5, 3, 3], rtol=1e-6)
    cosine = dataclasses.replace(linear, shape="cosine")
    quarter = 1 - np.cos(np.pi / 4)
    expected = [1, 1, 1 + quarter, 2, 3 - quarter, 3, 3]
    np.testing.assert_allclose(cosine(jnp.asarray(EPOCHS)), expected, rtol=1e-6)
    default = Ramp()(jnp.asarray([0.0, 5.0, 20.0, 240.0]))
    np.testing.assert_allclose(default, [0, 0.25, 1, 1], rtol=1e-6)


RAMP_VALUES = {"start": 0.5, "stop": 2.0, "begin": 1.0, "epochs": 10.0, "shape": "cosine"}


def test_no_field_of_a_ramp_is_dead():
    fields = {f.name for f in dataclasses.fields(Ramp)}
    assert fields == set(RAMP_VALUES)
    for field in fields:
        ramp = Ramp(**{field: RAMP_VALUES[field]})
        assert not np.allclose(ramp(jnp.asarray(EPOCHS)), Ramp()(jnp.asarray(EPOCHS))), field


def test_a_term_weighs_by_its_schedule():
    term = Term(SoftTarget(), 3.0, Ramp(start=0.5, stop=1.0, epochs=4.0))
    weight = term.weight_at(jnp.asarray(2.0))
    assert (weight.dtype, float(weight)) == (jnp.float32, 2.25)
    steady = Term(SoftTarget(), 3.0).weight_at(jnp.asarray(2.0))
    assert (steady.dtype, float(steady)) == (jnp.float32, 3.0)
