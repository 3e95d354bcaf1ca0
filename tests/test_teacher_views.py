"""What the teacher is shown: the student's view, the plain image, or views of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.augment import TEACHER_VIEWS, Flip, PadCrop, augment
from kdjax.data.pipeline import TrainingStream
from kdjax.experiment import Data
from kdjax.training.recipe import Recipe
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


def test_views_of_its_own_are_drawn_apart_from_the_students(source):
    batch = TrainingStream(source, 32, 0).batch(0, np.arange(32))
    views = [
        np.asarray(augment(VIEWS, 0, batch, *stream).image) for stream in ((), (TEACHER_VIEWS,))
    ]
    same = (views[0] == views[1]).all(axis=(1, 2, 3))
    assert same.sum() < 5, "one in 50 by chance"
    assert jax.tree.all(jax.tree.map(np.array_equal, augment((), 0, batch), batch))
