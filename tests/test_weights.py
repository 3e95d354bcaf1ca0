"""PyTorch files in and out, from the command line and as teachers."""

import dataclasses
import json
import pickle
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax import load
from kdjax.cli import main
from kdjax.deploy.torch_files import read_tensors
from kdjax.evaluation.load import as_teacher
from kdjax.jobs.distill import distill
from kdjax.models import NAMED
from kdjax.students.torch_weights import slots
from tests.torch_parity.inputs import draw

NAME, SHAPE = "resnet8", (8, 8, 1)
MODEL = NAMED[NAME].clone(mean=(0.3,), std=(0.4,))
FLAGS = ["--model", NAME, "--num-classes", "10", "--mean", "0.3", "--std", "0.4"]


def state(model=MODEL) -> dict[str, np.ndarray]:
    found = slots(model, SHAPE, model.torch_names()[0])
    return {slot.key: draw(slot.key, slot.torch_shape) for slot in found}


def write(path, tensors):
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    return str(path)


def run(file, out, *flags):
    shape = ["--image-size", "8", "--channels", "1"]
    return main(["weights", "import", file, *FLAGS, *shape, "--out", str(out), *flags])


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    assert run(write(folder / "net.safetensors", state()), folder / "run") == 0
    return folder / "run"


def test_what_comes_in_goes_out_to_the_bit(imported, tmp_path, capsys):
    out = tmp_path / "back.safetensors"
    assert main(["weights", "export", str(imported), "--out", str(out)]) == 0
    back = load_file(out)
    assert back.keys() == state().keys()
    for key, value in state().items():
        np.testing.assert_array_equal(back[key], value)
    assert capsys.readouterr().out.rstrip().endswith(f"{len(back)} arrays")
    assert main(["weights", "export", str(imported), "--format", "torch-safetensors"]) == 0
    assert load_file(imported / "torch.safetensors").keys() == back.keys()
    assert main(["weights", "export", str(imported), "--out", str(out)]) == 1
    assert "exists; choose another" in capsys.readouterr().err


def test_an_imported_run_is_a_run(imported, digits, data_directory, tmp_path, capsys):
    config = json.loads((imported / "config.json").read_text())
    assert config["run"]["imported"]["file"] == "net.safetensors"
    network = load(imported)
    assert network.logits(np.zeros((2, *SHAPE), np.uint8)).shape == (2, 10)
    flags = ["--data", "digits", "--directory", str(data_directory)]
    assert main(["evaluate", str(imported), *flags]) == 0
    assert "360" in capsys.readouterr().out
    assert main(["evaluate", str(imported)]) == 1
    assert "say --data NAME" in capsys.readouterr().err
    assert main(["export", str(imported), "--output", str(tmp_path / "export")]) == 0
    assert json.loads((tmp_path / "export" / "card.json").read_text())["max_difference"] < 1e-5


def test_an_imported_network_teaches(tiny, tmp_path):
    small = NAMED["tiny_cnn"].clone(mean=MODEL.mean, std=MODEL.std)
    file = write(tmp_path / "small.safetensors", state(small))
    assert run(file, tmp_path / "imported", "--model", "tiny_cnn") == 0
    experiment = tiny()
    teacher = dataclasses.replace(experiment.teacher, run=str(tmp_path / "imported"))
    derive = dataclasses.replace(experiment.student.derive, width=0.25)
    student = dataclasses.replace(experiment.student, derive=derive)
    experiment = dataclasses.replace(experiment, teacher=teacher, student=student, baseline=False)
    summary = distill(experiment, tmp_path / "job", "kdjax distill")
    assert summary["models"]["teacher"]["type"] == "SmallCNN"
    assert load(tmp_path / "job" / "student").model == small.clone(widths=(1, 2), hidden=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.weight": np.zeros((7, 64))}, r"1 shape; .*fc.weight \[7, 64\], but classifier needs"),
        ({"fc.weight": None, "fc.wait": np.zeros((10, 64))}, "missing: fc.weight nearest: fc.wait"),
        ({"bn1.weight": np.full(16, np.nan)}, "not finite: bn1.weight NaN"),
        ({"extra.weight": np.zeros(3)}, "1 unexpected"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(change, message, tmp_path, capsys):
    tensors = {k: v for k, v in {**state(), **change}.items() if v is not None}
    file = write(tmp_path / "bad.safetensors", tensors)
    assert run(file, tmp_path / "run") == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_data_of_other_channels_is_refused(tmp_path, digits, data_directory, capsys):
    """Normalisation would spread a grey image over three channels without a word."""
    found = slots(MODEL, (8, 8, 3), MODEL.torch_names()[0])
    colour = {slot.key: draw(slot.key, slot.torch_shape) for slot in found}
    file, out = write(tmp_path / "colour.safetensors", colour), tmp_path / "colour"
    assert main(["weights", "import", file, *FLAGS, "--image-size", "8", "--out", str(out)]) == 0
    with pytest.raises(ValueError, match="takes images 8x8x3, not 8x8x1"):
        as_teacher(out, "best", digits.info)
    data = ["--data", "digits", "--directory", str(data_directory)]
    assert main(["evaluate", str(out), *data]) == 1
    assert "have 1 channel(s), but" in capsys.readouterr().err
    assert main(["derive", str(out), "--width", "0.5", "--importance", "taylor"]) == 1
    assert "--importance: taylor looks at training data" in capsys.readouterr().err


def test_wrappers_and_counters_are_understood(tmp_path):
    tensors = {f"module.{k}": v for k, v in state().items()}
    tensors["module.bn1.num_batches_tracked"] = np.zeros((), np.int64)
    assert run(write(tmp_path / "net.safetensors", tensors), tmp_path / "run") == 0


def test_a_directory_that_is_in_use_is_left_alone(imported, capsys):
    assert run(str(imported.parent / "net.safetensors"), imported) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.safetensors", b"no weights here", "not a readable safetensors file"),
        ("net.safetensors", b"", "not a readable safetensors file"),
        ("missing.safetensors", None, "does not exist"),
    ],
)
def test_files_that_are_not_what_they_say(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / name)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    write(path, state())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_tensors(path)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_pickles_hold_tensors_or_are_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="reading .pth files needs the extra `torch`")
    tensors = {f"module.{k}": torch.from_numpy(v) for k, v in state().items()}
    for legacy in (True, False):
        path = tmp_path / f"{legacy}.pth"
        torch.save({"state_dict": tensors, "epoch": 3}, path, _use_new_zipfile_serialization=legacy)
        found = read_tensors(path)
        np.testing.assert_array_equal(found["module.fc.weight"], state()["fc.weight"])
    for content in (pickle.dumps(Bomb()), b"just text", path.read_bytes()[:1000]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"is refused|not a readable PyTorch file"):
            read_tensors(tmp_path / "bad.pth")
    torch.save({"half": torch.ones(2, dtype=torch.bfloat16)}, path)
    assert read_tensors(path)["half"].dtype == np.float32


def test_pickles_are_asked_for_weights_alone(tmp_path, monkeypatch):
    """Where there is no PyTorch to refuse them, at least this is known."""
    asked = []

    class Torch:
        def load(self, path, **how):
            asked.append(how)
            return {}

    monkeypatch.setitem(sys.modules, "torch", Torch())
    (tmp_path / "net.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_tensors(tmp_path / "net.pth")
    assert asked == [{"map_location": "cpu", "weights_only": True}]


def test_without_torch_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pip install 'kdjax\[torch\]'"):
        read_tensors(tmp_path / "net.pth")


def test_normalisation_comes_with_the_network(imported):
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    network = load(imported)
    by_hand = (images / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
    plain = network.model.clone(mean=(0.0,), std=(1.0,))
    expected = jax.jit(plain.apply)(network.variables, jnp.asarray(by_hand)).logits
    np.testing.assert_allclose(network.logits(images), expected, rtol=1e-5, atol=1e-5)
