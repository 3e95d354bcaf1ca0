"""Folders and npz files as data sets: what is in them, in which order, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from kdjax.data import sources
from kdjax.data.sources import Arrays, DataSet, Records
from kdjax.data.splits import pieces

SPLITS = {"train": "train", "validation": "validation", "test": "test"}
BROKEN = b"\x89PNG\r\n\x1a\nno more"


def image_of(number, size=(6, 8)):
    """An image that can be told from others after any lossless journey."""
    return np.full((*size, 3), number, np.uint8)


def write(path, number=0, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_of(number, size)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Four classes; images of class c are numbered 10 c, 10 c + 1, …"""
    for split, count in (("train", 5), ("val", 2), ("test", 1)):
        for label, name in enumerate(("ant", "bee", "cat", "dog")):
            for i in range(count):
                suffix = ("png", "PNG", "bmp", "tiff", "webp")[i]
                path = tmp_path / "set" / split / name / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                options = {"lossless": True} if suffix == "webp" else {}
                Image.fromarray(image_of(10 * label + i)).save(path, **options)
    (tmp_path / "set" / "train" / "ant" / "readme.txt").write_text("no image")
    return tmp_path / "set"


def opened(path, splits=SPLITS, **options):
    return DataSet(f"folder:{path}", None, splits, **options)


def test_a_folder_is_read_whole_and_under_its_labels(folder):
    data = opened(folder)
    assert data.info.classes == ("ant", "bee", "cat", "dog")
    assert data.info.sizes == {"train": 20, "validation": 8, "test": 4}
    assert data.info.shape == (6, 8, 3)
    part = data.open("train")
    numbers = part.images[:, 0, 0, 0]
    assert sorted(numbers) == [10 * label + i for label in range(4) for i in range(5)]
    np.testing.assert_array_equal(numbers // 10, part.labels)


def test_the_order_is_mixed_and_the_same_wherever_the_folder_lies(folder, tmp_path):
    labels = opened(folder).open("train").labels
    assert (np.diff(labels) < 0).sum() > 3  # not class by class
    moved = folder.rename(tmp_path / "moved")
    np.testing.assert_array_equal(opened(moved).open("train").labels, labels)
    other = DataSet("folder:moved", str(tmp_path), SPLITS)
    np.testing.assert_array_equal(other.open("train").labels, labels)


def test_slices_are_those_of_tfds(folder):
    splits = {"train": "train[:90%]", "validation": "train[90%:]", "test": "validation+test"}
    data = opened(folder, splits)
    assert data.info.sizes == {"train": 18, "validation": 2, "test": 12}
    both = [data.open(split).images for split in ("train", "validation")]
    np.testing.assert_array_equal(np.concatenate(both), opened(folder).open("train").images)


def test_pieces_are_cut_as_tfds_cuts():
    sizes = {"train": 11, "test": 4}
    assert pieces("train[-3:]+test[:50%]", sizes, "data.x", "x") == [
        ("train", 8, 11),
        ("test", 0, 2),
    ]
    with pytest.raises(ValueError, match=r"data.x: 'train\[1%2\]' is no split of x; it has train"):
        pieces("train[1%2]", sizes, "data.x", "x")


def test_a_split_is_decoded_once(folder):
    data = opened(folder)
    assert data.open("train") is data.open("train")


def test_a_split_too_large_to_keep_is_read_as_it_is_needed(folder, monkeypatch):
    kept = opened(folder, image_size=(3, 4)).open("train")
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    streamed = opened(folder, image_size=(3, 4)).open("train")
    assert isinstance(kept, Arrays)
    assert isinstance(streamed, Records)
    index = np.array([19, 0, 7, 7])
    for ours, theirs in zip(streamed.read(index), kept.read(index), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_fingerprint_follows_the_content_and_not_the_place(folder, tmp_path):
    first = opened(folder).info.fingerprint
    moved = folder.rename(tmp_path / "moved")
    assert opened(moved).info.fingerprint == first
    write(moved / "train" / "bee" / "new.png")
    second = opened(moved).info.fingerprint
    write(moved / "train" / "bee" / "new.png", size=(60, 80))
    assert len({first, second, opened(moved).info.fingerprint}) == 3


def test_images_of_many_sizes_need_one(folder):
    write(folder / "train" / "bee" / "large.png", 99, (30, 8))
    with pytest.raises(ValueError, match=r"shape .* must have one size; set data.image_size"):
        opened(folder).open("train")
    data = opened(folder, image_size=(5, 5))
    assert data.info.shape == (5, 5, 3)
    assert 99 in data.open("train").images[:, 2, 2, 0]


def test_colours_can_be_left_out(folder):
    data = opened(folder, grey=True)
    assert data.info.shape == (6, 8, 1)
    assert data.open("train").images.shape == (20, 6, 8, 1)


def test_one_image_is_a_data_set(tmp_path):
    write(tmp_path / "train" / "only" / "1.png", 7)
    data = opened(tmp_path, {"train": "train"})
    assert data.open("train").images.shape == (1, 6, 8, 3)
    with pytest.raises(ValueError, match=r"data.test: 'test' is no split .* it has train"):
        opened(tmp_path, {"train": "train", "test": "test"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(f.parent / "x"), "set does not exist"),
        (lambda f: (f / "test" / "eel").mkdir(), "other classes .* only test has eel"),
        (lambda f: (f / "test" / "dog").rename(f / "dog"), "only train has dog"),
        (lambda f: [x.unlink() for x in (f / "train/bee").iterdir()], "no images in train/bee"),
        (lambda f: write(f / "train" / "loose.png"), "1 images beside the class folders of train"),
        (lambda f: [(f / x).rename(f / f"my{x}") for x in ("train", "val", "test")],
         "none of the folders train, val, validation, test; it has mytest, mytrain, myval"),
        (lambda f: (f / "validation").mkdir(), "both val and validation"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_meant_are_refused(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=f"data.name: .*{message}"):
        opened(folder)


# --- Broken images -------------------------------------------------------------------------------


def broken(folder, count=2):
    names = [f"train/cat/b{i}.png" for i in range(count)]
    for name in names:
        (folder / name).write_bytes(BROKEN)
    return names


def test_a_broken_image_is_named_and_fatal(folder):
    (name,) = broken(folder, 1)
    with pytest.raises(ValueError, match=rf"{name} is not readable .* set data.broken to skip"):
        opened(folder).open("train")


@pytest.mark.parametrize("in_memory", [True, False])
def test_or_named_counted_and_left_out(folder, monkeypatch, capsys, tmp_path, in_memory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = opened(folder).open("train").images[:, 0, 0, 0].tolist()
    untouched = opened(folder).info.fingerprint
    names = broken(folder)
    if not in_memory:
        monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    for _ in range(2):
        data = opened(folder, broken="skip")
        assert data.info.sizes == {"train": 20, "validation": 8, "test": 4}
        images, labels = data.open("train").read(np.arange(20))
        assert images[:, 0, 0, 0].tolist() == whole
        np.testing.assert_array_equal(images[:, 0, 0, 0] // 10, labels)
        err = capsys.readouterr().err
        assert "2 of 22 images of train are broken and left out" in err
        assert all(name in err for name in names)
    assert data.info.fingerprint != untouched
    looked_at = list((tmp_path / "cache").rglob("*.json"))
    assert len(looked_at) == (0 if in_memory else 3)


def test_what_was_found_broken_is_looked_at_again_when_it_changes(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    first, _ = broken(folder)
    assert opened(folder, broken="skip").info.sizes["train"] == 20
    write(folder / first, 29)
    assert opened(folder, broken="skip").info.sizes["train"] == 21


def test_nothing_but_broken_images_is_an_error(folder):
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(BROKEN)
    with pytest.raises(ValueError, match=r"data.test: no image can be read, .*test/"):
        opened(folder, broken="skip")


# --- Without labels ------------------------------------------------------------------------------


def test_training_images_may_lie_about_without_labels(folder):
    for i, path in enumerate(sorted((folder / "train").rglob("*.*"))):
        path.rename(folder / "train" / f"{i}{path.suffix}")
    for path in (folder / "train").iterdir():
        if path.is_dir():
            path.rmdir()
    data = opened(folder)
    assert not data.info.labelled
    assert data.info.classes == ("ant", "bee", "cat", "dog")
    assert set(data.open("train").labels) == {-1}
    assert set(data.open("test").labels) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match=r"data.test: the images of 'train' have no labels"):
        opened(folder, {"train": "train", "test": "train"})


def test_no_labels_at_all_are_refused(tmp_path):
    write(tmp_path / "train" / "1.png")
    with pytest.raises(ValueError, match=r"has no class folders, such as train/cat/1.jpg"):
        opened(tmp_path, {"train": "train"})


# --- npz -----------------------------------------------------------------------------------------


def arrays(count=6, **more):
    images = np.arange(count * 20, dtype=np.uint8).reshape(count, 4, 5)
    labels = np.arange(count) % 3
    return {
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:3],
        "test_labels": labels[:3],
        **more,
    }


def npz(tmp_path, content, splits=("train", "test"), **options):
    np.savez(tmp_path / "set.npz", **content)
    return DataSet("npz:set.npz", str(tmp_path), {x: x for x in splits}, **options)


def test_arrays_come_out_as_they_went_in(tmp_path):
    data = npz(tmp_path, arrays())
    assert data.info.shape == (4, 5, 1)
    assert data.info.classes == ("0", "1", "2")
    images, labels = data.open("train").read(np.arange(6))
    np.testing.assert_array_equal(images[..., 0], arrays()["train_images"])
    np.testing.assert_array_equal(labels, arrays()["train_labels"])
    named = npz(tmp_path, arrays(classes=np.array(["a", "b", "c", "d"])))
    assert named.info.classes == ("a", "b", "c", "d")
    assert named.info.fingerprint != data.info.fingerprint


def test_the_fingerprint_of_arrays_follows_their_pixels(tmp_path):
    other = arrays()["train_images"] + 1
    ours, theirs = (npz(tmp_path, content) for content in (arrays(), arrays(train_images=other)))
    assert ours.info.fingerprint != theirs.info.fingerprint


def test_a_slice_of_arrays_keeps_labels_with_images(tmp_path):
    np.savez(tmp_path / "set.npz", **arrays())
    splits = {"train": "train[:4]", "test": "train[4:]"}
    part = DataSet("npz:set.npz", str(tmp_path), splits).open("test")
    np.testing.assert_array_equal(part.images[..., 0], arrays()["train_images"][4:])
    assert part.labels.tolist() == [1, 2]


def test_the_arrays_of_keras(tmp_path):
    images = np.zeros((5, 4, 4, 3), np.uint8)
    labels = np.array([[0], [1], [1], [0], [2]])
    content = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    data = npz(tmp_path, content)
    assert data.info.shape == (4, 4, 3)
    assert data.open("test").labels.tolist() == [0, 1, 1, 0, 2]


def test_arrays_without_labels(tmp_path):
    content = arrays()
    del content["train_labels"]
    data = npz(tmp_path, content)
    assert not data.info.labelled
    assert set(data.open("train").labels) == {-1}


def test_arrays_are_scaled_too(tmp_path):
    data = npz(tmp_path, arrays(), image_size=(8, 8))
    assert data.open("train").images.shape == (6, 8, 8, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train_labels": np.arange(6) - 1}, "labels from -1 to 4"),
        ({"classes": np.array(["a", "b"])}, "labels from 0 to 2, but 2 classes; labels are 0 to 1"),
        ({"train_labels": np.arange(5)}, r"labels of type int64 and shape \(5,\)"),
        ({"train_labels": np.linspace(0, 1, 6)}, "labels of type float64"),
        ({"train_images": np.zeros((6, 4, 5))}, "images of type float64"),
        ({"train_images": np.zeros((6, 4, 5, 4), np.uint8)}, r"shape \(6, 4, 5, 4\)"),
        ({"train_images": np.zeros((0, 4, 5), np.uint8)}, "no train images"),
        ({"train_images": np.zeros((6, 4, 5, 3), np.uint8)}, "grey images in one split"),
        ({"classes": np.array([object()])}, "holds Python objects, which are never loaded"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"data.name: .*set.npz .*{message}"):
        npz(tmp_path, arrays(**content))


def test_other_files_are_no_npz(tmp_path):
    whole = io.BytesIO()
    np.savez(whole, **arrays())
    single = io.BytesIO()
    np.save(single, np.arange(3))
    for content in (whole.getvalue()[:500], single.getvalue(), b"", b"text"):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged, or no npz file"):
            DataSet("npz:set.npz", str(tmp_path), {"train": "train"})
    with pytest.raises(ValueError, match=r"none.npz does not exist"):
        DataSet("npz:none.npz", str(tmp_path), {"train": "train"})
