"""Optimizers and schedules against closed forms in float64, and no field without an effect."""

import dataclasses
import operator
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.experiment.optim import DOT, SGD, AdamW, Optax, Optimizer
from kdjax.experiment.schedules import Constant, Cosine, OneCycle, Schedule, Steps, WarmRestarts
from kdjax.experiment.updates import decayed, everywhere, is_kernel, path_of
from kdjax.models import NAMED

PER_EPOCH, STEPS = 5.0, 50

START = {"kernel": [[1.0, -2.0], [0.5, 3.0]], "bias": [0.7, -1.5]}
CURVATURE = {"kernel": [[1.0, 0.1], [2.0, 0.3]], "bias": [0.5, 1.5]}
"""A quadratic, `sum(curvature · x²) / 2`, with one array that is a kernel and one that is not."""

OTHER_VALUES = {
    (SGD, "momentum"): 0.5,
    (SGD, "nesterov"): True,
    (SGD, "weight_decay"): 0.1,
    (SGD, "decay"): "all",
    (AdamW, "b1"): 0.5,
    (AdamW, "b2"): 0.9,
    (AdamW, "eps"): 0.1,
    (AdamW, "weight_decay"): 0.1,
    (AdamW, "decay"): "all",
    (DOT, "momentum"): 0.5,
    (DOT, "delta"): 0.01,
    (DOT, "weight_decay"): 0.1,
    (DOT, "decay"): "all",
    (Optax, "method"): "adagrad",
    (Optax, "options"): (("b1", 0.5),),
    (Optax, "weight_decay"): 0.5,
    (Optax, "decay"): "all",
    (Cosine, "peak"): 0.2,
    (Cosine, "warmup_epochs"): 2.0,
    (Cosine, "final"): 0.5,
    (Steps, "peak"): 0.2,
    (Steps, "epochs"): (2.0, 4.0),
    (Steps, "factor"): 0.5,
    (Steps, "warmup_epochs"): 2.0,
    (Constant, "peak"): 0.2,
    (Constant, "warmup_epochs"): 2.0,
    (OneCycle, "peak"): 0.2,
    (OneCycle, "start"): 0.5,
    (OneCycle, "final"): 1.0,
    (OneCycle, "rise"): 0.6,
    (WarmRestarts, "peak"): 0.2,
    (WarmRestarts, "period"): 5.0,
    (WarmRestarts, "longer"): 1.0,
    (WarmRestarts, "final"): 0.5,
    (WarmRestarts, "warmup_epochs"): 2.0,
}

BASES = {
    SGD: SGD(weight_decay=0.01),
    AdamW: AdamW(weight_decay=0.01),
    DOT: DOT(weight_decay=0.01),
    Optax: Optax(method="lion", weight_decay=0.1),
    Cosine: Cosine(),
    Steps: Steps(epochs=(3.0, 6.0)),
    Constant: Constant(),
    OneCycle: OneCycle(),
    WarmRestarts: WarmRestarts(period=2.0),
}

every_schedule = pytest.mark.parametrize("schedule", [Cosine(), Steps(epochs=(3,)), Constant()])


def quadratic_descent(optimizer, schedule, steps=STEPS):
    """The parameters after each step."""
    rate = schedule.schedule(PER_EPOCH, STEPS)
    transform = optax.with_extra_args_support(optimizer.transform(rate))
    as_array = lambda tree: {k: jnp.asarray(v) for k, v in tree.items()}  # noqa: E731
    start, curvature = as_array(START), as_array(CURVATURE)

    def step(carry, _):
        params, state = carry
        gradient = jax.tree.map(jnp.multiply, curvature, params)
        task = jax.tree.map(lambda g: 0.3 * g, gradient)  # for an optimizer that asks for it
        updates, state = transform.update(gradient, state, params, task=task)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    _, path = jax.lax.scan(step, (start, transform.init(start)), length=steps)
    return path


def np_descent(optimizer, rates, direction):
    """The same in float64; `direction(t, gradient, parameter, decay, memory)` is the method."""
    path = {}
    for name in START:
        x, memory, path[name] = np.array(START[name]), {}, []
        decays = optimizer.decay == "all" or name == "kernel"
        decay = optimizer.weight_decay if decays else 0.0
        for t, rate in enumerate(rates, start=1):
            gradient = np.array(CURVATURE[name]) * x
            x = x - rate * direction(t, gradient, x, decay, memory)
            path[name].append(x)
    return path


def agree(path, expected):
    for name in START:
        np.testing.assert_allclose(path[name], expected[name], rtol=2e-5, atol=1e-6)


def rates(schedule, per_epoch=PER_EPOCH, steps=STEPS):
    """The learning rate of every step, and the one after the last."""
    of_step = schedule.schedule(per_epoch, steps)
    return np.array([of_step(step) for step in range(steps + 1)], np.float64)


# --- No dead knobs -----------------------------------------------------------------------------


def fields_of(*unions):
    kinds = [kind for union in unions for kind in typing.get_args(union)[:-1]]
    return [(kind, f.name) for kind in kinds for f in dataclasses.fields(kind)]


@pytest.mark.parametrize(("kind", "field"), fields_of(Optimizer, Schedule))
def test_every_field_changes_the_trajectory(kind, field):
    assert (kind, field) in OTHER_VALUES, "give the new field another value in OTHER_VALUES"
    base = BASES[kind]
    other = dataclasses.replace(base, **{field: OTHER_VALUES[kind, field]})
    if kind in typing.get_args(Optimizer):
        paths = [quadratic_descent(value, Constant(peak=0.1)) for value in (base, other)]
    else:
        paths = [quadratic_descent(SGD(), value) for value in (base, other)]
    difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *paths)
    assert max(jax.tree.leaves(difference)) > 1e-3


# --- Closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", ["all", "kernels"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_pytorchs(momentum, nesterov, decay):
    optimizer = SGD(momentum=momentum, nesterov=nesterov, weight_decay=0.05, decay=decay)
    schedule = Cosine(peak=0.2, warmup_epochs=1.0)

    def direction(t, gradient, x, weight_decay, memory):
        gradient = gradient + weight_decay * x
        memory["buffer"] = momentum * memory.get("buffer", 0.0) + gradient
        return gradient + momentum * memory["buffer"] if nesterov else memory["buffer"]

    expected = np_descent(optimizer, rates(schedule)[:8], direction)
    agree(quadratic_descent(optimizer, schedule, steps=8), expected)


@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_adamw_decays_apart_from_the_moments(decay):
    optimizer = AdamW(b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.05, decay=decay)
    schedule = Cosine(peak=0.2, warmup_epochs=1.0)

    def direction(t, gradient, x, weight_decay, memory):
        memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * gradient
        memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * gradient**2
        m, v = memory["m"] / (1 - 0.8**t), memory["v"] / (1 - 0.95**t)
        return m / (np.sqrt(v) + 1e-3) + weight_decay * x

    expected = np_descent(optimizer, rates(schedule)[:8], direction)
    agree(quadratic_descent(optimizer, schedule, steps=8), expected)


@pytest.mark.parametrize("name", ["lion", "lamb", "rmsprop", "adamax", "contrib.muon"])
def test_optimizers_of_optax_by_name(name):
    """One step is that of the function there; those without decay have none."""
    ours, peak = Optax(method=name), Constant(peak=0.1)
    ours.check()
    path = quadratic_descent(ours, peak, steps=3)
    theirs = operator.attrgetter(name)(optax)(0.1, **({} if name in NO_DECAY else DECAY))
    params = {k: jnp.asarray(v) for k, v in START.items()}
    state = theirs.init(params)
    for i in range(3):
        gradient = jax.tree.map(lambda c, x: jnp.asarray(c) * x, CURVATURE_ARRAYS, params)
        updates, state = theirs.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        for key in params:
            np.testing.assert_allclose(path[key][i], params[key], rtol=1e-5)


NO_DECAY, DECAY = ("rmsprop", "adamax"), {"weight_decay": 0.0}
CURVATURE_ARRAYS = {key: np.array(value) for key, value in CURVATURE.items()}


def test_decay_of_optaxs_touches_kernels_and_is_none_where_a_group_has_none():
    params = {
        "a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "b": {"kernel": jnp.ones((1, 1))},
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = Optax(method="adamw", weight_decay=0.5)
    transform = optimizer.transform(lambda step: 0.1, lambda path: float(path.startswith("a")))
    updates, _ = transform.update(zeros, transform.init(params), params)
    assert np.unique(updates["a"]["kernel"]).tolist() == [np.float32(-0.05)]
    assert not np.any(updates["a"]["bias"])
    assert not np.any(updates["b"]["kernel"])
    half = optimizer.transform(lambda step: 0.1, lambda path: 0.5)
    with pytest.raises(ValueError, match=r"^decay: 0.5 cannot work for a/bias, since"):
        half.init(params)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Optax(method="adamm"), r"^method: optax has no optimizer 'adamm'; did you mean .*adam"),
        (Optax(method="chain"), r"^method: optax has no optimizer 'chain'"),
        (
            Optax(method="lion", options=(("beta1", 0.9),)),
            r"^options: 'beta1' cannot .* b1, b2",
        ),
        (Optax(method="lion", options=(("learning_rate", 0.9),)), r"^options: 'learning_rate'"),
        (
            Optax(method="rmsprop", weight_decay=0.1),
            r"^weight_decay: optax.rmsprop has none; leave",
        ),
        (Optax(weight_decay=-0.1), r"^weight_decay: -0.1 cannot work"),
        (
            Optax(method="muon"),
            r"^method: optax has no optimizer 'muon'; did you mean contrib.muon",
        ),
        (Optax(method="scale_by_rprop"), r"^method: optax has no optimizer 'scale_by_rprop'"),
        (
            Optax(method="lbfgs"),
            r"^method: optax.lbfgs cannot be used with these options \(.*\); cha",
        ),
        (
            Optax(method="contrib.schedule_free"),
            r"^method: optax.contrib.schedule_free cannot be us",
        ),
        (Optax(method="lion", options=(("weight_decay", 0.1),)), r"^options: .* has its own field"),
    ],
)
def test_rules_of_optaxs(optimizer, message):
    with pytest.raises(ValueError, match=message):
        optimizer.check()


def decays(model, shape) -> dict[str, bool]:
    """By path, whether `decay="kernels"` touches it."""
    variables = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    )
    params = jax.tree.map(lambda x: jnp.ones(x.shape), variables["params"])
    zeros = jax.tree.map(jnp.zeros_like, params)
    decay = decayed(0.5, "kernels", everywhere)
    updates, _ = decay.update(zeros, decay.init(params), params)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    values = {path_of(path): set(np.unique(leaf).tolist()) for path, leaf in leaves}
    assert all(value in ({0.0}, {0.5}) for value in values.values())
    return {path: value == {0.5} for path, value in values.items()}


@pytest.mark.parametrize("name", ["small_cnn", "deit_tiny_distilled", "convnext_tiny"])
def test_kernels_alone_decay(name):
    """No tokens, positions or scales, though they may have several axes."""
    small = name == "small_cnn"
    found = decays(NAMED[name], (8, 8, 1) if small else (224, 224, 3))
    kernels = {path for path in found if path.endswith("/kernel")}
    assert kernels
    assert {path for path, kept in found.items() if kept} == kernels


def test_positions_that_are_an_embedding_do_not_decay():
    two = jnp.ones((2, 2))
    assert is_kernel("words/embedding", two)
    assert is_kernel("position_mlp/kernel", two)
    assert not is_kernel("position_embedding/embedding", two)
    assert not is_kernel("classifier/bias", jnp.ones(2))


def test_one_cycle_is_pytorchs():
    """As the documentation of `OneCycleLR` has it, with its defaults and `pct_start = 4 / 11`: the
    first part ends with step `pct_start * total_steps - 1`, the second with the last."""
    found = rates(OneCycle(peak=0.1, rise=3 / 11), steps=11)[:11]

    def part(first, last, steps):
        return last + (first - last) * (1 + np.cos(np.pi * np.arange(steps + 1) / steps)) / 2

    expected = [*part(0.1 / 25, 0.1, 3)[:-1], *part(0.1, 0.1 / 25 / 1e4, 7)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_warm_restarts_begin_anew_and_grow():
    """Periods of 2, 4 and 8 epochs of 5 steps, by the paper's formula."""
    found = rates(WarmRestarts(peak=0.1, period=2.0, final=0.1), steps=50)
    expected = []
    for length in (10, 20, 40):
        t = np.arange(length) / length
        expected += (0.01 + 0.09 * 0.5 * (1 + np.cos(np.pi * t))).tolist()
    np.testing.assert_allclose(found[:50], expected[:50], rtol=1e-5)


def test_restarts_come_after_a_warm_up():
    found = rates(WarmRestarts(peak=0.1, period=2.0, warmup_epochs=1.0), steps=50)
    np.testing.assert_allclose(found[[0, 5, 14, 15]], [0, 0.1, 0.002447, 0.1], rtol=1e-3)


# --- Schedules at their edges ------------------------------------------------------------------


def test_cosine_warms_up_and_ends_at_its_final_share():
    rate = rates(Cosine(peak=0.2, warmup_epochs=2.0, final=0.1))
    step = np.arange(STEPS + 1)
    warmup = 0.2 * step / 10
    cosine = 0.2 * (0.1 + 0.9 * (1 + np.cos(np.pi * (step - 10) / 40)) / 2)
    np.testing.assert_allclose(rate, np.where(step < 10, warmup, cosine), rtol=1e-5, atol=1e-8)
    assert rate[0] == 0
    assert rate.argmax() == 10
    assert rate[[10, 30, 50]] == pytest.approx([0.2, 0.11, 0.02])


def test_cosine_without_warm_up_starts_at_its_peak():
    rate = rates(Cosine(peak=0.2))
    assert rate[[0, 25, 50]] == pytest.approx([0.2, 0.1, 0.0], abs=1e-8)
    assert (np.diff(rate) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_cosine_survives_a_run_shorter_than_its_warm_up(steps):
    rate = rates(Cosine(peak=0.2, warmup_epochs=9.0), steps=steps)
    assert np.isfinite(rate).all()
    assert rate[steps - 1] == pytest.approx(0.2)


def test_steps_drop_exactly_where_their_epochs_are_completed():
    rate = rates(Steps(peak=0.2, epochs=(3, 6.4), factor=0.1))
    assert rate[[0, 14]] == pytest.approx([0.2, 0.2])
    assert rate[[15, 31]] == pytest.approx([0.02, 0.02])
    assert rate[[32, 50]] == pytest.approx([0.002, 0.002])


def test_a_warm_up_does_not_move_the_drops():
    rate = rates(Steps(peak=0.2, epochs=(3, 6), factor=0.1, warmup_epochs=1))
    assert rate[:6] == pytest.approx(0.2 * np.arange(6) / 5)
    assert rate[[14, 15, 29, 30]] == pytest.approx([0.2, 0.02, 0.02, 0.002])


def test_drops_that_fall_on_one_step_all_count():
    rate = rates(Steps(peak=0.2, epochs=(0.1, 0.3, 0.5), factor=0.1), per_epoch=1.0, steps=5)
    assert rate == pytest.approx(np.full(6, 0.2 * 0.1**3))


def test_epochs_need_not_be_whole_numbers_of_steps():
    """1,197 digits in batches of 128: an epoch is 9.35 steps."""
    rate = rates(Steps(peak=0.2, epochs=(2,), factor=0.5), per_epoch=1197 / 128)
    assert rate[[18, 19]] == pytest.approx([0.2, 0.1])


def test_constant_warms_up_and_stays():
    rate = rates(Constant(peak=0.2, warmup_epochs=1))
    assert rate == pytest.approx(0.2 * np.minimum(np.arange(STEPS + 1) / 5, 1))
    assert rates(Constant(peak=0.2)) == pytest.approx(np.full(STEPS + 1, 0.2))


@every_schedule
def test_rates_are_the_same_inside_a_compiled_step(schedule):
    of_step = schedule.schedule(PER_EPOCH, STEPS)
    compiled = jax.jit(of_step)(jnp.asarray(16))
    assert compiled == pytest.approx(float(of_step(16)), rel=1e-6)
