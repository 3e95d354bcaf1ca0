"""Decoded splits that are kept for the next job."""

import numpy as np
import pytest
from PIL import Image

from kdjax.data import decoded
from kdjax.data.images import Decoder
from kdjax.data.sources import DataSet

SPLITS = {"train": "train", "validation": "validation", "test": "validation"}
SHAPE = (4, 5, 3)


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Where they are kept, however few."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "WORTHWHILE", 1)
    return tmp_path / "cache" / "kdjax" / "decoded"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        write(tmp_path / "images" / "train" / "a" / f"{i}.png", 10 * i)
        write(tmp_path / "images" / "val" / "a" / f"{i}.png", 10 * i + 1)
    return tmp_path / "images"


def train(folder, **fields):
    """The first pixel of each training image, and the labels."""
    source = DataSet(f"folder:{folder}", None, SPLITS, **fields).open("train")
    assert source.images.dtype == np.uint8
    return sorted(source.images[:, 0, 0, 0].tolist()), source.labels.tolist()


def refuse(monkeypatch):
    def attempt(self, data, name):
        raise AssertionError("decoded again")

    monkeypatch.setattr(Decoder, "attempt", attempt)


def test_the_next_job_decodes_nothing(folder, kept, monkeypatch):
    first = train(folder)
    assert first == ([0, 10, 20], [0, 0, 0])
    assert len([*kept.iterdir()]) == 1
    refuse(monkeypatch)
    assert train(folder) == first
    with pytest.raises(AssertionError):
        train(folder, grey=True)  # other pixels


def test_files_that_changed_are_decoded_again(folder):
    train(folder)
    write(folder / "train" / "a" / "1.png", 200)
    assert train(folder) == ([0, 20, 200], [0, 0, 0])


@pytest.mark.parametrize("damage", [b"", b"PK", b"none of this"])
def test_a_damaged_file_is_written_again(folder, kept, damage, monkeypatch):
    first = train(folder)
    (path,) = kept.iterdir()
    path.write_bytes(damage or path.read_bytes()[:-50])
    assert train(folder) == first
    refuse(monkeypatch)
    assert train(folder) == first


def test_a_set_with_broken_images_is_not_kept(folder, kept):
    (folder / "train" / "a" / "1.png").write_bytes(b"broken")
    assert train(folder, broken="skip") == ([0, 20], [0, 0])
    assert len([*kept.iterdir()]) == 1  # the validation images


def test_what_was_not_used_for_longest_makes_room(kept, monkeypatch):
    images, labels = np.zeros((2, *SHAPE), np.uint8), np.zeros(2, np.int32)
    decoded.save("old", images, labels)
    size = (kept / "old.npz").stat().st_size
    monkeypatch.setattr(decoded, "MOST_BYTES", 3 * size)
    for name in ("second", "third"):
        decoded.save(name, images, labels)
    assert decoded.load("old", 2, SHAPE) is not None  # used again
    decoded.save("fourth", images, labels)
    assert sorted(path.stem for path in kept.iterdir()) == ["fourth", "old", "third"]


def test_small_and_huge_sets_are_not_kept(kept, monkeypatch):
    images, labels = np.zeros((2, *SHAPE), np.uint8), np.zeros(2, np.int32)
    monkeypatch.setattr(decoded, "WORTHWHILE", 3)
    decoded.save("few", images, labels)
    monkeypatch.setattr(decoded, "WORTHWHILE", 1)
    monkeypatch.setattr(decoded, "MOST_BYTES", 10)
    decoded.save("huge", images, labels)
    assert not kept.exists()


def test_a_full_disk_leaves_nothing_behind(kept, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    decoded.save("name", np.zeros((2, *SHAPE), np.uint8), np.zeros(2, np.int32))
    assert [*kept.iterdir()] == []
