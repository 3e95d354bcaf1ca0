"""What the teacher is shown: the student's view, the plain image, or views of its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.cache.answers import decode, encode
from kdjax.data.augment import TEACHER_VIEWS, CutMix, Flip, Mixup, MixupOrCutMix, PadCrop, augment
from kdjax.data.pipeline import TrainingStream
from kdjax.experiment import Cache, Data
from kdjax.experiment.objective import Term
from kdjax.jobs.distill import distill
from kdjax.losses import RKD, FitNet
from kdjax.models import infer
from kdjax.training.gradients import _seen, _teach
from kdjax.training.mixture import mixture
from kdjax.training.recipe import Recipe
from kdjax.types import AXIS, Batch, Outputs
from tests.training import TEACHER, make_run, random_teacher, start, train

VIEWS = (PadCrop(padding=2), Flip())


@pytest.fixture(scope="module")
def source(digits):
    return digits.open("train")


def soft_target(student, teacher):
    """At temperature 3, as the run has it."""
    z, t = (np.asarray(logits, np.float64) / 3 for logits in (student, teacher))
    log_q, log_p = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (z, t))
    return 9 * (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()


SHOWN = {
    "the same": (None, lambda batch: augment(VIEWS, 0, batch).image),
    "plain": ((), lambda batch: jnp.asarray(batch.image)),
    "its own": (VIEWS, lambda batch: augment(VIEWS, 0, batch, TEACHER_VIEWS).image),
}
EVERY_DAY = {("plain", 1), ("its own", 8)}


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        pytest.param(name, devices, marks=() if (name, devices) in EVERY_DAY else pytest.mark.slow)
        for name in SHOWN
        for devices in (1, 8)
    ],
)
def test_the_teacher_answers_to_what_it_is_shown(name, devices, source):
    own, shown = SHOWN[name]
    run = make_run(data=Data(augment=VIEWS, teacher_augment=own))
    _, history, _ = train(run, source, random_teacher(), ("pmap", devices), steps=1)
    batch = TrainingStream(source, 32, 0).batch(0, np.arange(32))
    first = start(run, Recipe.of(run, TEACHER, len(source)))
    weights = {"params": first.params["student"], "batch_stats": first.stats["student"]}
    alone = run.model.clone(sync_batch_norm=False)

    @jax.jit
    def answers(batch):
        seen = augment(VIEWS, 0, batch).image
        student, _ = alone.apply(weights, seen, train=True, mutable=["batch_stats"])
        teacher = TEACHER.apply(random_teacher(), shown(batch), train=False)
        return student.logits, teacher.logits

    np.testing.assert_allclose(history[0, 4], soft_target(*answers(batch)), rtol=1e-5)


# --- Mixtures of what it is shown ----------------------------------------------------------------


def softmax(logits):
    z = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    return z / z.sum(axis=-1, keepdims=True)


def np_mixture(logits, share, views):
    """Probabilities, each with those of the same view of the next example."""
    p = softmax(np.asarray(logits, np.float64))
    return share[:, None] * p + (1 - share[:, None]) * np.roll(p, -views, axis=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0), axis_name=AXIS)
def said(recipe, cache, batch):
    """What the student's step hears of a teacher: of its own mixture, and of each image."""
    plain = infer(TEACHER, random_teacher(), augment(VIEWS, 0, batch, TEACHER_VIEWS).image)
    if cache is not None:
        batch = batch._replace(answers=encode(cache, plain))
        plain = decode(cache, batch.answers, 10)
    seen = _seen(recipe, batch)
    return _teach(recipe, random_teacher(), seen), plain.logits, seen.share


@pytest.mark.parametrize(
    ("mixing", "cache", "views", "devices"),
    [
        (Mixup(), None, 1, 1),
        (MixupOrCutMix(probability=0.5), None, 2, 8),
        (CutMix(), Cache(top_k=3), 1, 8),
        (CutMix(), Cache(embedding=True), 2, 1),
    ],
    ids=str,
)
def test_answers_are_mixed_as_the_images_are(mixing, cache, views, devices, source):
    data = Data(augment=(*VIEWS, mixing), teacher_augment=VIEWS, views=views)
    run = make_run(data=data, cache=cache or Cache())
    batch = TrainingStream(source, 32, 0, views).batch(0, np.arange(32))
    cut = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    found = said(Recipe.of(run, TEACHER, len(source)), cache, cut)
    target, plain, share = jax.tree.map(lambda x: np.asarray(x).reshape(32, *x.shape[2:]), found)
    assert np.unique(share).size > 10
    np.testing.assert_allclose(softmax(target.logits), np_mixture(plain, share, views), atol=1e-6)
    whole = share == 1
    np.testing.assert_allclose(target.logits[whole], plain[whole], atol=1e-5)
    assert not target.features
    assert target.embedding.shape == (32, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, -6e-8, 1e-30, 0.5])
def test_any_share_of_any_answer_is_a_number(share):
    """Answers as sure as float32 can tell them, and shares that leave out one of them."""
    logits = jnp.asarray([[3e4, 0.0, -3e4], [-200.0, 0.0, 200.0]])
    index = jnp.arange(2)
    batch = Batch(None, None, index, index, index, index > -1, share=jnp.full(2, share))
    mix = jax.vmap(functools.partial(mixture, views=1), axis_name=AXIS)
    each = jax.tree.map(lambda x: x[None], (Outputs(logits, {}, logits), batch))
    target = mix(*each).logits[0]
    assert np.isfinite(target).all()
    expected = np_mixture(logits, np.full(2, np.clip(share, 0, 1)), 1)
    np.testing.assert_allclose(softmax(np.asarray(target)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("slices", "layout"),
    [(1, ("pmap", 8)), pytest.param(2, ("shard_map", 4), marks=pytest.mark.slow)],
    ids=str,
)
def test_a_student_of_mixtures_learns_the_same_on_any_devices(slices, layout, source):
    data = Data(augment=(*VIEWS, Mixup()), teacher_augment=(), views=2)
    run = make_run(data=data, fit=dataclasses.replace(make_run().fit, accumulate=slices))
    one, many = (train(run, source, random_teacher(), way)[1] for way in (("pmap", 1), layout))
    np.testing.assert_allclose(one, many, rtol=2e-4)


@pytest.mark.parametrize(
    ("loss", "what"), [(FitNet(), "feature maps"), (RKD(), "embedding")], ids=["maps", "embedding"]
)
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_cannot_be_mixed_is_refused_before_training(role, loss, what, tiny, tmp_path):
    experiment = tiny()
    data = dataclasses.replace(experiment.data, augment=(Mixup(),), teacher_augment=())
    learner = getattr(experiment, role)
    fit = learner.fit
    if role == "teacher":  # its own moving average teaches it
        fit = dataclasses.replace(fit, ema_decay=0.99, ema_teacher=True)
    learner = dataclasses.replace(learner, fit=fit, losses=(*learner.losses, Term(loss)))
    wants = dataclasses.replace(experiment, data=data, **{role: learner})
    place, name = len(learner.losses) - 1, type(loss).__name__
    message = rf"^{role}\.losses\.{place}: {name} reads the teacher's {what}, .*leave out data\.t"
    with pytest.raises(ValueError, match=message):
        distill(wants, tmp_path, "")
    assert not (tmp_path / "teacher").exists()


def test_views_of_its_own_are_drawn_apart_from_the_students(source):
    batch = TrainingStream(source, 32, 0).batch(0, np.arange(32))
    views = [
        np.asarray(augment(VIEWS, 0, batch, *stream).image) for stream in ((), (TEACHER_VIEWS,))
    ]
    same = (views[0] == views[1]).all(axis=(1, 2, 3))
    assert same.sum() < 5, "one in 50 by chance"
    assert jax.tree.all(jax.tree.map(np.array_equal, augment((), 0, batch), batch))
