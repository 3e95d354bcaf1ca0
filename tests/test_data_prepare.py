"""Data sets out of published files, on small files of the same layout."""

import gzip
import hashlib
import io
import resource
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kdjax.cli import main
from kdjax.data import official
from kdjax.data import prepare as preparing
from kdjax.data.prepare import prepare
from kdjax.data.published import IDX_FILES, Cifar, Extracted, Mnist
from kdjax.data.sources import DataSet

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
TRAIN, TEST = 30, 8
COARSE = [f"group{i}" for i in range(20)]
FINE = [f"class{i}" for i in range(100)]


def cifar_files():
    """`cifar-100-binary` with few records, and their labels and pixels."""
    rng = np.random.default_rng(0)
    files, truth = {}, {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        coarse, fine = rng.integers(0, 20, count), rng.integers(0, 100, count)
        pixels = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        rows = [coarse[:, None], fine[:, None], pixels.transpose(0, 3, 1, 2).reshape(count, -1)]
        files[f"{split}.bin"] = np.concatenate(rows, axis=1).astype(np.uint8).tobytes()
        truth[split] = coarse, fine, pixels
    files["coarse_label_names.txt"] = "\n".join([*COARSE, ""]).encode()
    files["fine_label_names.txt"] = "\n".join([*FINE, ""]).encode()
    return files, truth


def sha(data):
    return hashlib.sha256(data).hexdigest()


def pretend_published(monkeypatch, name, archives):
    """What TFDS and we know of the archives, as if these had been published."""
    stock = tfds.builder_cls(name)
    infos = {}
    for url, info in stock.url_infos.items():
        if info.filename in archives:
            data = archives[info.filename]
            infos[url] = type(info)(size=len(data), checksum=sha(data), filename=info.filename)
    like = official.builder_like

    def builder_like(name, splits):
        cls = like(name, splits)
        cls.url_infos = infos
        return cls

    monkeypatch.setattr(preparing, "builder_like", builder_like)


def tar_of(files, folder):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-100 with few images, extracted in `extracted` and as an archive in `archives`."""
    files, truth = cifar_files()
    known = [Extracted(name, len(data), sha(data)) for name, data in files.items()]
    monkeypatch.setitem(official.OFFICIAL, "cifar100", Cifar(*known))
    folder = tmp_path / "extracted" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    archive = tar_of(files, "cifar-100-binary")
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "cifar-100-binary.tar.gz").write_bytes(archive)
    pretend_published(monkeypatch, "cifar100", {"cifar-100-binary.tar.gz": archive})
    return truth


def as_tfds_reads(directory, name, split):
    """Records as the stock builder hands them over, pictures decoded."""
    source = tfds.builder(name, data_dir=directory).as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return [
        {**record, "image": np.asarray(Image.open(io.BytesIO(record["image"])))}
        for record in source
    ]


@pytest.mark.parametrize("form", ["extracted", "extracted/cifar-100-binary", "archives"])
def test_cifar_is_what_tfds_would_have_written(cifar, tmp_path, form):
    prepare("cifar100", tmp_path / form, str(tmp_path / "tfds"))
    builder = tfds.builder("cifar100", data_dir=tmp_path / "tfds")
    assert builder.is_prepared()
    assert str(builder.version) == str(tfds.builder_cls("cifar100").VERSION)
    assert builder.info.features["label"].names == FINE
    assert builder.info.features["coarse_label"].names == COARSE
    assert builder.info.file_format.value == "array_record"
    for split, (coarse, fine, pixels) in cifar.items():
        records = as_tfds_reads(tmp_path / "tfds", "cifar100", split)
        numbers = [int(record["id"].decode().removeprefix(f"{split}_")) for record in records]
        assert sorted(numbers) == list(range(len(fine)))
        assert numbers != sorted(numbers)  # in the order of the hash of the key
        for number, record in zip(numbers, records, strict=True):
            assert (record["coarse_label"], record["label"]) == (coarse[number], fine[number])
            np.testing.assert_array_equal(record["image"], pixels[number])
    data = DataSet("tfds:cifar100", str(tmp_path / "tfds"), {"train": "train", "test": "test"})
    assert data.info.shape == (32, 32, 3)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("form", ["extracted", "archives"])
def test_mnist_and_its_like(tmp_path, monkeypatch, name, form):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAIN, 28, 28), np.uint8)
    labels = np.arange(TRAIN) % 10
    contents = [idx(x) for x in (images, labels, images[:TEST], labels[:TEST])]
    sizes = [len(x) for x in contents]
    monkeypatch.setitem(official.OFFICIAL, name, Mnist(sizes))
    archives = {f"{x}.gz": gzip.compress(y) for x, y in zip(IDX_FILES, contents, strict=True)}
    pretend_published(monkeypatch, name, archives)
    files = archives if form == "archives" else dict(zip(IDX_FILES, contents, strict=True))
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    prepare(name, tmp_path, str(tmp_path / "tfds"))
    for split, count in (("train", TRAIN), ("test", TEST)):
        records = as_tfds_reads(tmp_path / "tfds", name, split)
        expected = {bytes(images[i]): labels[i] for i in range(count)}
        found = {bytes(record["image"]): record["label"] for record in records}
        assert found == expected


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_imagenette(tmp_path, monkeypatch, form):
    counts = {"train": 12, "val": 4}
    counted = {"imagenette2": tuple(counts.values())}
    monkeypatch.setattr(official.Imagenette, "COUNTS", counted)
    classes = tfds.builder_cls("imagenette")(config="160px-v2", data_dir=tmp_path).info
    wnids = classes.features["label"].names
    files = {}
    for split, count in counts.items():
        for i in range(count):
            picture = io.BytesIO()
            Image.fromarray(np.full((9, 7, 3), 9 * i, np.uint8)).save(picture, "JPEG")
            files[f"{split}/{wnids[i % 4]}/{split}{i}.JPEG"] = picture.getvalue()
    if form == "folder":
        for name, data in files.items():
            path = tmp_path / "imagenette2-160" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    else:
        archive = tar_of(files, "imagenette2-160")
        (tmp_path / "imagenette2-160.tgz").write_bytes(archive)
        pretend_published(monkeypatch, "imagenette", {"imagenette2-160.tgz": archive})
    prepare("imagenette/160px-v2", tmp_path, str(tmp_path / "tfds"))
    builder = tfds.builder("imagenette/160px-v2", data_dir=tmp_path / "tfds")
    for split, folder in (("train", "train"), ("validation", "val")):
        records = list(
            builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        )
        found = sorted((wnids[record["label"]], record["image"]) for record in records)
        expected = sorted((x.split("/")[1], y) for x, y in files.items() if x.startswith(folder))
        assert found == expected
    counts["train"] += 1
    monkeypatch.setattr(official.Imagenette, "COUNTS", {"imagenette2": tuple(counts.values())})
    with pytest.raises(ValueError, match=r"train has 12 images, not 13: files are missing"):
        prepare("imagenette/160px-v2", tmp_path, str(tmp_path / "other"))


def test_a_folder_as_a_data_set(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for name in ("ant", "bee"):
            for i, suffix in enumerate(("png", "jpg", "webp")[:count]):
                path = tmp_path / "set" / split / name / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((4, 5, 3), 40 * i, np.uint8)).save(path)
    folder = f"folder:{tmp_path / 'set'}"
    prepare(folder, None, str(tmp_path / "tfds"), "insects")
    splits = {"train": "train", "test": "test"}
    ours = DataSet("tfds:insects", str(tmp_path / "tfds"), splits)
    theirs = DataSet(folder, None, splits)
    assert ours.info.classes == theirs.info.classes
    assert ours.info.sizes == theirs.info.sizes
    pairs = [
        sorted((bytes(x), int(y)) for x, y in zip(*d.open("train").read(np.arange(6)), strict=True))
        for d in (ours, theirs)
    ]
    assert pairs[0] == pairs[1]
    (tmp_path / "set" / "train" / "ant" / "9.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"ant/9.png is not readable as an image"):
        prepare(folder, None, str(tmp_path / "other"), "insects")
    assert not list((tmp_path / "other").rglob("*incomplete*"))
    for title, message in ((None, "a folder needs a name"), ("My set", "must be lower case")):
        with pytest.raises(ValueError, match=message):
            prepare(folder, None, str(tmp_path / "other"), title)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("archives/cifar-100-binary.tar.gz", cut, r"tar.gz is truncated: it has .* bytes, not"),
        ("archives/cifar-100-binary.tar.gz", flip, r"tar.gz is damaged, or another file"),
        ("archives/cifar-100-binary.tar.gz", Path.unlink, r"--from: .* has neither cifar-100-b"),
        ("extracted/cifar-100-binary/test.bin", cut, r"test.bin has .* bytes, not .*truncated"),
        ("extracted/cifar-100-binary/test.bin", flip, r"test.bin is damaged, or another file"),
        ("extracted/cifar-100-binary/test.bin", Path.unlink, r"test.bin is missing"),
    ],
)
def test_files_that_are_not_whole_are_refused_and_leave_nothing(
    cifar, tmp_path, capsys, form, change, message
):
    change(tmp_path / form)
    source = str(tmp_path / form.split("/")[0])
    with pytest.raises(ValueError, match=message):
        prepare("cifar100", Path(source), str(tmp_path / "tfds"))
    assert [p.name for p in (tmp_path / "tfds").rglob("*") if p.is_file()] in ([], [".lock"])
    arguments = ["data", "prepare", "cifar100", "--from", source, "--directory", str(tmp_path)]
    assert main(arguments) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("kdjax: ")
    assert len(err.splitlines()) <= 2


def test_prepared_is_prepared(cifar, tmp_path, capsys):
    arguments = ["data", "prepare", "cifar100", "--directory", str(tmp_path / "tfds")]
    assert main([*arguments, "--from", str(tmp_path / "extracted")]) == 0
    out = capsys.readouterr().out
    assert "train 30, test 8" in out
    assert "--data.name tfds:cifar100" in out
    assert main(arguments) == 0  # nothing is asked of the network
    left = tmp_path / "tfds" / "cifar100" / "incomplete.ABCDEF_3.0.2"
    assert not left.exists()


def test_what_a_killed_one_left_is_cleaned(cifar, tmp_path):
    version = tfds.builder_cls("cifar100").VERSION
    left = tmp_path / "tfds" / "cifar100" / f"incomplete.ABCDEF_{version}"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    prepare("cifar100", tmp_path / "extracted", str(tmp_path / "tfds"))
    assert not left.exists()


def test_two_at_once_wait_for_each_other(cifar, tmp_path, capsys):
    def once(_):
        return prepare("cifar100", tmp_path / "extracted", str(tmp_path / "tfds"))

    with ThreadPoolExecutor(2) as pool:
        assert all(builder.is_prepared() for builder in pool.map(once, range(2)))
    assert "another process prepares cifar100" in capsys.readouterr().err
    assert tfds.builder("cifar100", data_dir=tmp_path / "tfds").is_prepared()


def test_a_full_disk_is_named_and_nothing_is_left(cifar, tmp_path, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(ValueError, match=r"cifar100: no space left in .*; nothing was kept"):
            prepare("cifar100", tmp_path / "extracted", str(tmp_path / "tfds"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list((tmp_path / "tfds").rglob("*incomplete*"))


def test_a_machine_without_network_says_so_at_once(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(ValueError, match=r"cannot be reached. Fetch cifar-10-binary.tar.gz on an"):
        prepare("cifar10", None, str(tmp_path))


def test_names_that_cannot_be_prepared(tmp_path):
    with pytest.raises(ValueError, match=r"--from: .*/none is no directory"):
        prepare("cifar10", tmp_path / "none", str(tmp_path))
    with pytest.raises(ValueError, match=r"cifar1: TFDS knows no such data set"):
        prepare("cifar1", None, str(tmp_path))
    with pytest.raises(ValueError, match=r"imagenette/100px: TFDS knows imagenette/full-size"):
        prepare("imagenette/100px", None, str(tmp_path))


@pytest.mark.skipif("tensorflow" in sys.modules, reason="TensorFlow is here")
def test_others_need_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"oxford_iiit_pet: only mnist, .*'kdjax\[tf\]'"):
        prepare("oxford_iiit_pet", None, str(tmp_path))


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_the_real_fashion_mnist(tmp_path):
    files = SHARED / "fashion-mnist"
    prepare("fashion_mnist", files, str(tmp_path))
    data = DataSet("tfds:fashion_mnist", str(tmp_path), {"train": "train", "test": "test"})
    assert data.info.sizes == {"train": 60_000, "test": 10_000}
    raw = gzip.decompress((files / f"{IDX_FILES[2]}.gz").read_bytes())[16:]
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, 784)
    ours = data.open("test").images.reshape(-1, 784)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))


# --- Looking at a data set -----------------------------------------------------------------------


def test_show_says_what_is_in_it(tmp_path, capsys):
    images = np.zeros((30, 6, 6, 3), np.uint8)
    images[:15, ..., 0] = 255
    labels = np.repeat(np.arange(12), [1] * 6 + [4] * 6)
    np.savez(
        tmp_path / "set.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    sheet = tmp_path / "sheet.png"
    arguments = ["data", "show", "npz:set.npz", "--directory", str(tmp_path)]
    assert main([*arguments, "--output", str(sheet)]) == 0
    out = capsys.readouterr().out
    for piece in ("12 classes: 0, 1, 2", "1 to 4", "6 x 6", "mean=(0.5, 0.0, 0.0)",
                  "std=(0.5, 0.0, 0.0)", "of 30 of the 30 images of train"):  # fmt: skip
        assert piece in out
    width, height = Image.open(sheet).size
    assert width > 4 * 96
    assert height > 10 * 96


def test_the_data_commands_need_no_jax(tmp_path):
    program = (
        "import sys; from kdjax.cli import main; code = main(sys.argv[1:]); "
        "assert 'jax' not in sys.modules; sys.exit(code)"
    )
    arguments = ["data", "show", "digits", "--directory", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "train" in done.stdout
