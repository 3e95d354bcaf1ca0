"""The distributed step against one big batch written down by hand."""

import dataclasses
import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.data.augment import PadCrop, augment
from kdjax.data.pipeline import TrainingStream
from kdjax.experiment import Data
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import DOT, SGD
from kdjax.experiment.schedules import Constant
from kdjax.losses import (
    CC,
    CRD,
    DIST,
    PKT,
    RKD,
    SP,
    AttentionTransfer,
    CrossEntropy,
    FitNet,
    Ramp,
    SoftTarget,
)
from kdjax.training.gradients import Remembered, terms_of
from kdjax.training.parallel import Devices, fetch
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, initial_adapters
from kdjax.training.step import make_balance, make_probe
from kdjax.types import Batch
from tests.support import TINY, largest_difference, tiny_fit
from tests.training import LOSSES, SHAPE, TEACHER, each_step, make_run, random_teacher, start, train

LAYOUTS = [
    ("pmap", 1),
    ("pmap", 8),
    ("shard_map", 8),
    pytest.param(("pmap", 2), marks=pytest.mark.slow),
    pytest.param(("shard_map", 1), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def source(digits):
    return digits.open("train")


@pytest.fixture(scope="module")
def teacher():
    return random_teacher()


@pytest.fixture(scope="module")
def trained(source, teacher):
    """`train`, but each of the plain runs that several tests look at is trained once."""
    return functools.cache(lambda run, layout=("pmap", 1): train(run, source, teacher, layout))


@pytest.fixture(scope="module")
def one_big_batch(source, teacher):
    return by_hand(make_run(), source, teacher)


def by_hand(run, source, teacher, steps=4):
    """The same training as one big batch under plain jit, sharing no code with the step."""
    model = run.model.clone(sync_batch_norm=False)
    recipe = Recipe.of(run, TEACHER, len(source))
    schedule = optax.cosine_decay_schedule(0.05, recipe.steps)
    optimizer = optax.chain(
        optax.add_decayed_weights(5e-4, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        optax.sgd(schedule, momentum=0.9),
    )
    state = start(run, recipe)
    params, stats = state.params["student"], state.stats["student"]
    moments = optimizer.init(params)

    @jax.jit
    def step(params, stats, moments, images, labels):
        t = TEACHER.apply(teacher, images, train=False).logits

        def objective(params):
            outputs, new = model.apply(
                {"params": params, "batch_stats": stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            ce = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels).mean()
            p, log_q = jax.nn.softmax(t / 3.0), jax.nn.log_softmax(outputs.logits / 3.0)
            kd = 9.0 * (p * (jnp.log(p) - log_q)).sum(axis=-1).mean()
            return 0.3 * ce + 0.7 * kd, (new["batch_stats"], jnp.stack([ce, kd]))

        (loss, (stats_, terms)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), stats_, moments, loss, terms

    losses = []
    stream = TrainingStream(source, run.fit.batch_size, run.seed)
    for i in range(steps):
        batch = stream.batch(i, np.arange(run.fit.batch_size))
        params, stats, moments, loss, terms = step(params, stats, moments, batch.image, batch.label)
        losses.append([loss, *terms])
    return params, stats, np.array(losses)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_any_layout_equals_one_big_batch(layout, one_big_batch, trained):
    params, stats, losses = one_big_batch
    state, history, _ = trained(make_run(), layout)
    assert largest_difference(fetch(state.params["student"]), params) < 2e-6
    assert largest_difference(fetch(state.stats["student"]), stats) < 2e-6
    np.testing.assert_allclose(history[:, [0, 3, 4]], losses, rtol=1e-5)


def test_pmap_and_shard_map_agree_to_the_bit(trained):
    one, other = (trained(make_run(), (name, 8))[0] for name in ("pmap", "shard_map"))
    assert largest_difference(fetch(one.params), fetch(other.params)) == 0


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param(
            (Term(CrossEntropy()), Term(AttentionTransfer(), 100.0)), marks=pytest.mark.slow
        ),
        (Term(CrossEntropy()), Term(FitNet(stage="stage1"), 10.0), Term(FitNet())),
    ],
    ids=["attention", "fitnet"],
)
def test_feature_losses_and_adapters_do_not_see_the_devices(losses, source, teacher):
    run = make_run(losses=losses)
    states = [train(run, source, teacher, ("pmap", n))[0] for n in (1, 8)]
    one, eight = (fetch((s.params, s.stats)) for s in states)
    assert largest_difference(one, eight) < 5e-6
    if isinstance(losses[1].loss, FitNet):
        before = start(run, Recipe.of(run, TEACHER, len(source)))
        assert set(one[0]["adapters"]) == {"fit_net", "fit_net_2"}
        assert largest_difference(before.params["adapters"], one[0]["adapters"]) > 1e-4
        assert largest_difference(before.stats["adapters"], one[1]["adapters"]) > 1e-4


def test_adapters_of_two_terms_begin_apart():
    terms = (Term(FitNet()), Term(FitNet()))
    adapters = initial_adapters(terms, TINY, TEACHER, SHAPE, jax.random.key(0))
    one, other = (adapters[name]["params"]["conv"]["kernel"] for name in ("fit_net", "fit_net_2"))
    assert abs(one - other).min() > 0


@pytest.mark.parametrize("sync", [True, False])
def test_replicas_never_drift_apart(sync, trained):
    run = make_run(model=TINY.clone(sync_batch_norm=sync))
    state, _, _ = trained(run, ("pmap", 8))
    for leaf in jax.tree.leaves(state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 8
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])


def test_local_batch_norm_is_another_computation(trained):
    sync, local = (
        trained(make_run(model=TINY.clone(sync_batch_norm=s)), ("pmap", 8))[0]
        for s in (True, False)
    )
    assert largest_difference(fetch(sync.params), fetch(local.params)) > 1e-4


def test_the_teacher_keeps_every_bit(trained, teacher):
    _, _, after = trained(make_run(), ("pmap", 8))
    assert largest_difference(fetch(after), teacher) == 0


def test_no_gradient_reaches_the_teacher(source, teacher):
    run = make_run(losses=(*LOSSES, Term(AttentionTransfer())))
    recipe = Recipe.of(run, TEACHER, len(source))
    state = start(run, recipe)
    batch = TrainingStream(source, 32, 0).batch(0, np.arange(32))
    past = Remembered(state.stats, state.memory)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(params, frozen):
        terms, _ = jax.vmap(
            lambda b: terms_of(recipe, params, {}, past, frozen, b, jnp.int32(0)),
            axis_name="batch",
        )(jax.tree.map(lambda x: x[None], batch))
        return terms.sum()

    ours, theirs = gradients(state.params, teacher)
    assert all(not leaf.any() for leaf in jax.tree.leaves(theirs))
    assert any(leaf.any() for leaf in jax.tree.leaves(ours))


@pytest.mark.parametrize("slices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_accumulation_means_the_same_on_any_number_of_devices(slices, source, teacher):
    run = make_run(fit=tiny_fit(batch_size=32, accumulate=slices))
    one, eight = (train(run, source, teacher, ("pmap", n))[0] for n in (1, 8))
    assert largest_difference(fetch(one.params), fetch(eight.params)) < 2e-6


def test_accumulated_gradients_are_those_of_the_slices(source, teacher):
    """Each slice is normalised by itself; running statistics forget once, whatever the slices."""
    run = make_run(fit=tiny_fit(batch_size=32, accumulate=2, optimizer=SGD(weight_decay=0.0)))
    recipe = Recipe.of(run, TEACHER, len(source))
    first = start(run, recipe)
    stream = TrainingStream(source, 32, run.seed)
    batch = stream.batch(0, np.arange(32))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_of(params, past, piece):
        terms, new = jax.vmap(
            lambda b: terms_of(recipe, params, {}, past, teacher, b, jnp.int32(0)),
            axis_name="batch",
        )(piece)
        return jnp.dot(jnp.array([0.3, 0.7]), terms[0]), new

    past, halves = Remembered(first.stats, {}), []
    for part in (slice(0, 16), slice(16, 32)):
        piece = jax.tree.map(lambda x, part=part: x[part][None], batch)
        grads, new = gradient_of(first.params, past, piece)
        halves.append((grads, jax.tree.map(lambda x: x[0], new.stats)))
    gradient, stats = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, first.params, gradient)
    state, _, _ = train(run, source, teacher, ("pmap", 1), steps=1)
    assert largest_difference(fetch(state.params), expected) < 1e-6
    assert largest_difference(fetch(state.stats), stats) < 1e-6


def test_gradients_are_clipped_and_not_updates(source, teacher):
    optimizer, schedule = SGD(weight_decay=0.0), Constant(peak=0.1)
    fit = tiny_fit(batch_size=32, clip_norm=0.01, optimizer=optimizer, schedule=schedule)
    run = make_run(fit=fit)
    state, history, _ = train(run, source, teacher, steps=1)
    assert history[0, 1] > 0.1, "the norm is logged as it was"
    before = start(run, Recipe.of(run, TEACHER, len(source))).params
    moved = jax.tree.map(np.subtract, fetch(state.params), before)
    assert optax.tree.norm(moved) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_moving_average_follows_its_formula(source, teacher):
    run = make_run(fit=tiny_fit(batch_size=32, ema_decay=0.3))
    recipe = Recipe.of(run, TEACHER, len(source))
    average = dict(start(run, recipe).ema)
    for steps, (state, *_) in enumerate(each_step(run, source, teacher, steps=3), start=1):
        d = min(0.3, (1 + steps) / (10 + steps))
        average = jax.tree.map(
            lambda a, x, d=d: d * a + (1 - d) * x, average, dict(fetch(state).variables())
        )
        assert largest_difference(fetch(state.ema), average) < 1e-6


def test_weights_move_with_their_schedule(source, teacher):
    ramp = Ramp(start=0.0, stop=1.0, epochs=1.0)
    run = make_run(losses=(Term(CrossEntropy()), Term(SoftTarget(), 2.0, ramp)))
    recipe = Recipe.of(run, TEACHER, len(source))
    _, history, _ = train(run, source, teacher, steps=3)
    column = recipe.metric_names().index("weight/soft_target")
    expected = 2.0 * np.arange(3) / recipe.steps_per_epoch
    np.testing.assert_allclose(history[:, column], expected, rtol=1e-6)
    loss = history[:, 0]
    ce, kd = history[:, 3], history[:, 4]
    np.testing.assert_allclose(loss, ce + expected * kd, rtol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_stores_float32(trained):
    run = make_run(model=TINY.clone(dtype="bfloat16"))
    state, history, _ = trained(run, ("pmap", 8))
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}
    exact = trained(make_run(), ("pmap", 8))[1]
    gap = np.abs(history[:, 0] - exact[:, 0]) / exact[:, 0]
    assert 1e-7 < gap.max() < 0.05


def test_views_follow_the_example_not_the_device(trained):
    run = make_run(data=Data(augment=(PadCrop(padding=2),)))
    one, eight = (trained(run, ("pmap", n))[0] for n in (1, 8))
    plain, _, _ = trained(make_run())
    assert largest_difference(fetch(one.params), fetch(eight.params)) < 2e-6
    assert largest_difference(fetch(one.params), fetch(plain.params)) > 1e-4


def test_teacher_and_student_see_the_same_view(source):
    """With the student's own weights as teacher the two differ by batch norm's mode alone."""
    batch = TrainingStream(source, 8, 0).batch(0, np.arange(8))
    seen = augment((PadCrop(padding=2),), 0, batch)
    again = augment((PadCrop(padding=2),), 0, batch)
    np.testing.assert_array_equal(seen.image, again.image)
    assert isinstance(seen, Batch)
    assert not np.array_equal(seen.image, batch.image)


def test_a_batch_that_does_not_divide_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"fit.batch_size: 100 .* 8 devices; 96 or 104 would"):
        Devices(count=8).check_batch("fit.batch_size", 100)
    with pytest.raises(ValueError, match=r"8 devices x 4 slices; 96 or 128 would"):
        Devices(count=8).check_batch("fit.batch_size", 120, slices=4)
    with pytest.raises(ValueError, match=r"5; *|5 does not divide over 8 devices; 8 would"):
        Devices(count=8).check_batch("fit.batch_size", 5)
    with pytest.raises(ValueError, match=r"runtime.devices: 9 asked for"):
        Devices(count=9)


def test_the_probe_measures_each_terms_own_gradient(source, teacher):
    """Against the step's own norm, for runs of one term each; and on any number of devices."""
    losses = (Term(CrossEntropy(), 0.5), Term(FitNet(), 3.0))
    run = make_run(losses=losses)
    norms = [probed(run, source, teacher, devices) for devices in (1, 8)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-4, atol=1e-7)
    alone = make_run(losses=(Term(CrossEntropy()),))
    _, history, _ = train(alone, source, teacher, steps=1)
    np.testing.assert_allclose(norms[0][0, 0], history[0, 1], rtol=1e-5)
    assert norms[0][1, 0] == 0, "the task has no adapter"
    assert norms[0][1, 1] > 0


def probed(run, source, teacher, count):
    recipe = Recipe.of(run, TEACHER, len(source))
    devices = Devices("pmap", count)
    state, frozen = devices.replicate(start(run, recipe)), devices.replicate(teacher)
    batch = TrainingStream(source, 32, run.seed).batch(0, devices.rows(32))
    probe = devices.spread(make_probe(recipe), donate=False)
    return fetch(probe(state, Fixed(frozen), devices.split(batch)))


def test_balanced_terms_pull_as_their_weights_say(source, teacher):
    run = make_run(losses=(Term(CrossEntropy(), 1.0), Term(SoftTarget(), 2.0)))
    recipe = Recipe.of(run, TEACHER, len(source))
    devices = Devices("pmap", 2)
    state, frozen = devices.replicate(start(run, recipe)), devices.replicate(teacher)
    batch = devices.split(TrainingStream(source, 32, run.seed).batch(0, devices.rows(32)))
    norms, _ = probed(run, source, teacher, 1)
    balanced = devices.spread(make_balance(recipe), donate=True)(state, Fixed(frozen), batch)
    scales = fetch(balanced.scales)
    pulls = norms * scales * np.array([1.0, 2.0])
    np.testing.assert_allclose(pulls[1] / pulls[0], 2.0, rtol=1e-4)
    assert scales[0] == 1


def test_dot_gives_task_and_teacher_a_momentum_each(source, teacher):
    """Its first step is SGD's; the second follows the formula, written down from gradients."""
    fit = tiny_fit(batch_size=32, optimizer=DOT(momentum=0.8, delta=0.1, weight_decay=0.0))
    run = make_run(fit=dataclasses.replace(fit, schedule=Constant(peak=0.1)))
    apart = [make_run(fit=run.fit, losses=(term,)) for term in LOSSES]
    recipe = Recipe.of(run, TEACHER, len(source))
    stream = TrainingStream(source, 32, run.seed)
    params, past = start(run, recipe).params["student"], start(run, recipe).stats
    task = distil = jax.tree.map(np.zeros_like, params)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1, has_aux=True)
    def gradient_of(own, student, past, batch):
        params = {"student": student, "adapters": {}}
        terms, new = jax.vmap(
            lambda b: terms_of(own, params, {}, Remembered(past, {}), teacher, b, jnp.int32(0)),
            axis_name="batch",
        )(jax.tree.map(lambda x: x[None], batch))
        return own.terms[0].weight * terms.sum(), new

    owns = [Recipe.of(part, TEACHER, len(source)) for part in apart]
    for step in range(2):
        batch = stream.batch(step, np.arange(32))
        (pull, new), (push, _) = (gradient_of(own, params, past, batch) for own in owns)
        past = jax.tree.map(lambda x: x[0], new.stats)
        task = jax.tree.map(lambda v, g: 0.7 * v + g, task, pull)
        distil = jax.tree.map(lambda v, g: 0.9 * v + g, distil, push)
        params = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b), params, task, distil)
    for devices in (1, 8):
        state, _, _ = train(run, source, teacher, ("pmap", devices), steps=2)
        assert largest_difference(fetch(state.params["student"]), params) < 2e-6


def test_the_moving_average_teaches(source):
    """Without any other teacher; at first it is the student, so there is nothing to learn."""
    fit = tiny_fit(batch_size=32, ema_decay=0.9, ema_teacher=True)
    losses = (Term(CrossEntropy()), Term(SoftTarget()))
    states = []
    for devices in (1, 8):
        state, history, _ = train(make_run(fit=fit, losses=losses), source, {}, ("pmap", devices))
        states.append(fetch(state.params))
        assert np.isfinite(history).all()
        assert history[-1, 4] > 0
    assert largest_difference(*states) < 5e-6


@pytest.mark.parametrize(
    ("slices", "losses"),
    [
        pytest.param(
            1,
            (Term(CrossEntropy()), Term(SP(), 100.0), Term(RKD()), Term(DIST())),
            marks=pytest.mark.slow,  # each by itself is compared in its own tests
        ),
        (2, (Term(CrossEntropy()), Term(PKT(), 1000.0), Term(CC(), 0.02), Term(CRD(), 0.1))),
    ],
    ids=["sp-rkd-dist", "pkt-cc-crd"],
)
def test_losses_of_the_whole_batch_do_not_see_the_devices(slices, losses, source, teacher):
    run = make_run(losses=losses, fit=tiny_fit(batch_size=32, accumulate=slices))
    states = [train(run, source, teacher, ("pmap", n), steps=2)[0] for n in (1, 8)]
    for leaf in jax.tree.leaves(states[1]):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert all(np.array_equal(shard, shards[0]) for shard in shards)
    one, eight = (fetch((s.params, s.stats, s.memory)) for s in states)
    assert largest_difference(one, eight) < 5e-5


class Dice(CrossEntropy):
    """Of the whole batch: how often it was thrown before, and a number below one."""

    whole_batch: ClassVar[bool] = True

    @nn.compact
    def __call__(self, student, teacher, batch):
        thrown = self.variable("memory", "thrown", jnp.zeros, ())
        value = thrown.value + jax.random.uniform(self.make_rng("loss"))
        if not self.is_initializing():
            thrown.value += 1
        return value


@pytest.mark.parametrize("slices", [1, 2])
def test_losses_remember_and_draw_anew_in_every_step_and_term(slices, source, teacher):
    terms = (Term(CrossEntropy()), Term(Dice()), Term(Dice()))
    run = make_run(losses=terms, fit=tiny_fit(batch_size=32, accumulate=slices))
    histories = [train(run, source, teacher, ("pmap", n), steps=3)[1][:, 4:6] for n in (1, 8)]
    np.testing.assert_allclose(*histories, rtol=1e-6)
    thrown = slices * np.arange(3)[:, None] + (slices - 1) / 2  # the mean over the slices
    drawn = histories[0] - thrown
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert len(np.unique(drawn.round(4))) == drawn.size
