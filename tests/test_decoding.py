"""Images that are decoded when they are first read."""

import numpy as np
import pytest

from kdjax.data import decoded
from kdjax.data.decoding import CHUNK, Decoding
from kdjax.data.images import BrokenImage, Decoder
from kdjax.data.sources import DataSet
from tests.conftest import SPLITS

COUNT = CHUNK + 40


@pytest.fixture
def kept(monkeypatch):
    """What is written down for the next job, by name."""
    found = {}
    monkeypatch.setattr(decoded, "save", lambda name, *arrays: found.update({name: arrays}))
    return found


@pytest.fixture
def asked():
    return []


@pytest.fixture
def split(asked, kept):
    def read(indices):
        asked.append(indices.tolist())
        images = np.broadcast_to(indices[:, None, None, None] % 251, (len(indices), 2, 2, 1))
        return images.astype(np.uint8), 1000 + indices

    return Decoding(read, COUNT, (2, 2, 1), "it")


def test_an_image_is_decoded_once_and_none_before_it_is_read(split, asked):
    assert (len(split), split.shape, asked) == (COUNT, (COUNT, 2, 2, 1), [])
    images, labels = split.read(np.array([7, 3, 7]))
    assert images[:, 0, 0, 0].tolist() == [7, 3, 7]
    assert labels.tolist() == [1007, 1003, 1007]
    split.read(np.array([3, 9]))
    assert asked == [[3, 7], [9]]


def test_all_are_written_down_when_the_last_is_decoded(split, asked, kept):
    split.read(np.arange(1, COUNT))
    assert kept == {}
    assert max(map(len, asked)) == CHUNK
    np.testing.assert_array_equal(split.labels, 1000 + np.arange(COUNT))
    np.testing.assert_array_equal(kept["it"][0][:, 1, 1, 0], np.arange(COUNT) % 251)
    assert sum(map(len, asked)) == COUNT
    assert split.images is kept["it"][0]


def test_images_of_a_prepared_set_come_when_they_are_read(data_directory, monkeypatch):
    """The digits, whose records hold one image each."""
    seen = []
    digits = DataSet("digits", str(data_directory), SPLITS)
    whole, _ = digits.open("train").read(np.arange(20))
    decode = Decoder.__call__

    def noting(self, data, name):
        seen.append(name)
        return decode(self, data, name)

    monkeypatch.setattr(Decoder, "__call__", noting)
    source = DataSet("digits", str(data_directory), SPLITS).open("train")
    assert seen == []
    images, _ = source.read(np.array([4, 17]))
    assert len(seen) == 2
    np.testing.assert_array_equal(images, whole[[4, 17]])


def test_a_broken_image_is_named_with_the_way_out_when_it_is_met(data_directory, monkeypatch):
    def broken(self, data, name):
        raise BrokenImage(f"{name} is not readable.")

    monkeypatch.setattr(Decoder, "__call__", broken)
    digits = DataSet("digits", str(data_directory), SPLITS)
    with pytest.raises(ValueError, match=r"record 5 of .* set data.broken to skip"):
        digits.open("train").read(np.array([5]))
