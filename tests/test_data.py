"""Every example, once, in an order that depends on nothing but the seed."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdjax.data.pipeline import TrainingStream, evaluation_batches, prefetch
from kdjax.data.sources import Arrays, DataSet
from kdjax.training.parallel import Devices
from tests.conftest import SPLITS


def _numbered(size: int) -> Arrays:
    images = np.arange(size, dtype=np.uint8).reshape(size, 1, 1, 1)
    return Arrays(images, np.arange(size))


def test_the_digits_are_those_of_scikit_learn(digits):
    parts = [digits.open(split) for split in SPLITS]
    assert [len(part) for part in parts] == [1197, 240, 360]
    ours = np.concatenate([part.images.reshape(len(part), -1) for part in parts])
    theirs = np.round(load_digits().data * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))
    assert digits.info.shape == (8, 8, 1)
    assert digits.info.classes == tuple("0123456789")


def test_labels_stay_with_their_images(digits):
    known = {bytes(image): label for image, label in zip(*_scikit(), strict=True)}
    for split in SPLITS:
        part = digits.open(split)
        assert [known[bytes(image)] for image in part.images] == part.labels.tolist()


def _scikit():
    data = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8), data.target


def test_any_prepared_tfds_set_and_any_slice_of_it(digits, data_directory):
    splits = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    other = DataSet("tfds:kdjax_digits", str(data_directory), splits)
    assert other.info.sizes == {"train": 1077, "validation": 120, "test": 360}
    both = [other.open(split).images for split in ("train", "validation")]
    np.testing.assert_array_equal(np.concatenate(both), digits.open("train").images)


def test_a_large_split_is_decoded_as_it_is_read(digits, data_directory, monkeypatch):
    monkeypatch.setattr("kdjax.data.sources.IN_MEMORY_BYTES", 0)
    streamed = DataSet("digits", str(data_directory), SPLITS).open("test")
    assert not isinstance(streamed, Arrays)
    monkeypatch.undo()
    index = np.array([3, 359, 3, 0])
    for ours, theirs in zip(streamed.read(index), digits.open("test").read(index), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "splits", "message"),
    [
        ("tfds:cifar10", SPLITS, "data.name: cifar10 is not prepared in .*; prepare it once"),
        ("tfds:cifa10", SPLITS, "data.name: TFDS knows no data set 'cifa10'"),
        ("digits", {"train": "trian"}, "data.train: 'trian' is no split .* it has .*train"),
        ("digits", {"train": "train[:0]"}, r"data.train: 'train\[:0\]' .* is empty"),
    ],
)
def test_bad_names_are_refused(name, splits, message, data_directory, digits):
    with pytest.raises(ValueError, match=message):
        DataSet(name, str(data_directory), splits)


def test_every_epoch_is_a_permutation_and_batches_straddle_epochs():
    stream = TrainingStream(_numbered(10), batch_size=4, seed=0)
    batches = [stream.names(step, np.arange(4)) for step in range(5)]
    index = np.concatenate([batch.index for batch in batches])
    epoch = np.concatenate([batch.epoch for batch in batches])
    assert epoch.tolist() == [0] * 10 + [1] * 10
    for e in (0, 1):
        assert sorted(index[epoch == e]) == list(range(10))
    assert index[:10].tolist() != index[10:].tolist()


def test_a_batch_is_a_function_of_seed_and_step():
    rows = np.arange(4)
    first = [TrainingStream(_numbered(10), 4, seed=1).batch(step, rows).index for step in range(6)]
    stream = TrainingStream(_numbered(10), 4, seed=1)
    for step in (5, 2, 0, 4):  # in any order, by another stream
        np.testing.assert_array_equal(stream.batch(step, rows).index, first[step])
    other = TrainingStream(_numbered(10), 4, seed=2).batch(0, rows).index
    assert other.tolist() != first[0].tolist()


def test_views_of_an_example_follow_each_other():
    stream = TrainingStream(_numbered(5), 4, seed=0, views=2)
    batches = [stream.names(step, np.arange(4)) for step in range(5)]
    index, epoch, view = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("index", "epoch", "view")
    )
    np.testing.assert_array_equal(index[::2], index[1::2])
    for e in (0, 1):
        assert sorted(index[10 * e : 10 * (e + 1) : 2]) == list(range(5))
    assert epoch.tolist() == [0] * 10 + [1] * 10
    assert view.tolist() == [0, 1] * 5 + [2, 3] * 5


def test_a_cycle_comes_back_to_the_same_views_and_changes_no_order():
    endless, cycle = (TrainingStream(_numbered(5), 5, seed=0, cycle=c) for c in (None, 3))
    batches = [cycle.names(step, np.arange(5)) for step in range(7)]
    assert [batch.view.tolist() for batch in batches] == [[v] * 5 for v in (0, 1, 2, 0, 1, 2, 0)]
    assert [batch.epoch[0] for batch in batches] == list(range(7))
    for step, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.index, endless.names(step, np.arange(5)).index)


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(ValueError, match=r"batch_size: 11 is more than the 10 training examples"):
        TrainingStream(_numbered(10), 11, seed=0)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("batch_size", [8, 16])
def test_evaluation_counts_every_example_once(size, batch_size):
    batches = list(evaluation_batches(_numbered(size), batch_size, np.arange(batch_size)))
    assert {len(batch.mask) for batch in batches} == {batch_size}
    seen = np.concatenate([batch.index[batch.mask] for batch in batches])
    assert seen.tolist() == list(range(size))


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_a_slice_holds_the_same_examples_on_any_number_of_devices(slices):
    def members(count: int) -> list[set[int]]:
        devices = Devices(count=count)
        grid = devices.rows(32, slices).reshape(count, slices, -1)
        return [set(grid[:, i].ravel().tolist()) for i in range(slices)]

    assert members(1) == members(2) == members(8)


def test_prefetch_keeps_order_and_passes_on_errors():
    assert list(prefetch(range(20), depth=3)) == list(range(20))

    def broken():
        yield 1
        raise OSError("disk")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk"):
        next(items)
