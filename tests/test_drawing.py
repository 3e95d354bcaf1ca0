"""Classes made more alike by how often their examples are drawn."""

import dataclasses

import numpy as np
import pytest

from kdjax.cache.origin import views_needed
from kdjax.data.augment import Flip, Mixup
from kdjax.data.drawing import SAMPLINGS, class_shares
from kdjax.data.pipeline import TrainingStream, first_batches
from kdjax.data.sources import Arrays
from kdjax.experiment import Cache, Data
from kdjax.experiment.objective import Term
from kdjax.experiment.rules import check_cache, validate
from kdjax.jobs.distill import train as train_job
from kdjax.losses import CrossEntropy
from kdjax.training.feed import stream_of
from kdjax.training.run_directory import RunDirectory
from tests.support import tiny_fit
from tests.training import make_run, random_teacher, train

SIZES = np.array([200, 50, 0, 2])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))
SOURCE = Arrays(np.zeros((len(LABELS), 1, 1, 1), np.uint8), LABELS)
EPOCHS = 200


def epochs(sampling, seed=0, count=EPOCHS):
    """The examples of each epoch."""
    stream = TrainingStream(SOURCE, len(SOURCE), seed, sampling=sampling)
    return np.array([stream.names(step, np.arange(len(SOURCE))).index for step in range(count)])


@pytest.mark.parametrize(("sampling", "power"), [("class", 0.0), ("square_root", 0.5)])
def test_classes_have_their_shares_and_their_examples_are_alike(sampling, power):
    expected = np.array([n**power if n else 0 for n in SIZES.tolist()])
    expected /= expected.sum()
    np.testing.assert_allclose(class_shares(SIZES, sampling), expected)
    index = epochs(sampling).ravel()
    found = np.bincount(LABELS[index], minlength=4) / index.size
    # Five standard deviations of a share of so many draws.
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / np.sqrt(index.size))
    each = np.bincount(index, minlength=len(LABELS))
    for c in (0, 1, 3):
        of_class = each[c == LABELS]
        assert (abs(of_class - of_class.mean()) < 5 * np.sqrt(of_class.mean())).all()


def test_an_epoch_is_a_function_of_seed_and_epoch():
    first, again, other = (epochs("class", seed, 3) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({tuple(row) for row in [*first, *other]}) == 6
    stream = TrainingStream(SOURCE, 100, 0, sampling="class")
    for step in (5, 2, 0):  # in any order, of any rows
        rows = np.array([99, 3])
        expected = first.ravel()[step * 100 + rows]
        np.testing.assert_array_equal(stream.names(step, rows).index, expected)


@pytest.mark.parametrize("views", [1, 2])
def test_what_is_drawn_again_is_another_view(views):
    stream = TrainingStream(SOURCE, 50, 0, views, sampling="class")
    batches = [stream.names(step, np.arange(50)) for step in range(20)]
    seen = [pair for b in batches for pair in zip(b.index.tolist(), b.view.tolist(), strict=True)]
    assert len(set(seen)) == len(seen) == 1000
    assert len({index for index, _ in seen}) < 600 // views  # there were repetitions
    index, epoch = (np.concatenate([getattr(b, f) for b in batches]) for f in ("index", "epoch"))
    np.testing.assert_array_equal(index[::views], index[views - 1 :: views])
    np.testing.assert_array_equal(epoch, np.arange(1000) // views // len(SOURCE))


def test_a_cycle_bounds_the_views_of_what_is_drawn():
    stream = TrainingStream(SOURCE, 50, 0, cycle=3, sampling="class")
    views = np.concatenate([stream.names(step, np.arange(50)).view for step in range(20)])
    assert set(views.tolist()) == {0, 1, 2}
    assert views_needed(Data(sampling="class", cycle=3), 1, (Flip(),)) == 3


def test_the_number_of_a_view_stays_one():
    stream = TrainingStream(SOURCE, 50, 0, sampling="class")
    late = stream.names(2**31 // 50, np.arange(50))
    assert late.view.min() >= 0


def test_the_first_batches_are_drawn_as_those_of_the_run():
    ((_, labels),) = first_batches(SOURCE, 100, 0, 1, "class")
    np.testing.assert_array_equal(labels, LABELS[epochs("class", 0, 1)[0, :100]])


# --- In a run ----------------------------------------------------------------------------------


def test_a_run_is_fed_with_what_its_data_say():
    data = Data(sampling="square_root", views=2, cycle=3)
    run = make_run(seed=4, data=data, fit=tiny_fit(batch_size=20))
    found = stream_of(run, SOURCE).names(7, np.arange(20))
    expected = TrainingStream(SOURCE, 20, 4, 2, 3, "square_root").names(7, np.arange(20))
    for field in ("index", "view", "epoch"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.slow
def test_a_training_on_draws_does_not_depend_on_the_layout(digits):
    run = make_run(data=Data(augment=(Flip(), Mixup()), sampling="class"))
    source = digits.open("train")
    # Two of three are of one class, so examples of the others repeat.
    few = Arrays(source.images[:96], np.where(np.arange(96) < 64, 0, source.labels[:96]))
    one, many = (train(run, few, random_teacher(), way)[1] for way in (("pmap", 1), ("pmap", 8)))
    np.testing.assert_allclose(many, one, rtol=2e-4)


@pytest.mark.slow
def test_a_job_draws_and_weighs_as_its_preset_says(tiny, tmp_path):
    """The whole way: what is counted and drawn reaches the step."""
    plain = tiny(epochs=1)
    changes = {
        "plain": plain,
        "drawn": dataclasses.replace(plain, data=dataclasses.replace(plain.data, sampling="class")),
        "weighed": dataclasses.replace(
            plain,
            teacher=dataclasses.replace(
                plain.teacher, losses=(Term(CrossEntropy(class_balance=1.0)),)
            ),
        ),
    }
    found = set()
    for name, experiment in changes.items():
        train_job(experiment, tmp_path / name)
        found.add(RunDirectory(tmp_path / name / "teacher").metrics.read_text().splitlines()[2])
    assert len(found) == 3


def test_an_unknown_way_is_refused(tiny):
    experiment = tiny()
    object.__setattr__(experiment.data, "sampling", "classes")  # as a preset may, unlike a flag
    message = r"^data.sampling: 'classes' cannot work; it must be one of instance, square_root, cla"
    with pytest.raises(ValueError, match=message):
        validate(experiment)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_answers_are_kept_only_for_views_that_come_again(sampling):
    cache, flips = Cache(directory="x"), (Flip(),)
    for fields in ({"cycle": 2, "augment": flips}, {}, {"augment": flips, "teacher_augment": ()}):
        check_cache(cache, Data(sampling=sampling, **fields))
    if sampling == "instance":
        return
    check_cache(Cache(), Data(sampling=sampling, augment=flips))
    with pytest.raises(ValueError, match=r"^teacher.cache.directory: .* set data.cycle"):
        check_cache(cache, Data(sampling=sampling, augment=flips))
