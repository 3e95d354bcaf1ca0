"""The exported file answers like the network, or there is none."""

import json
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import kdjax.deploy.export as module
from kdjax.deploy.export import export, load_exported
from kdjax.evaluation.load import load
from kdjax.experiment.objective import Term
from kdjax.losses import CRD, CrossEntropy, FitNet
from kdjax.models.summary import parameter_count
from kdjax.training.loop import Teaching
from kdjax.training.recipe import Recipe
from tests.losses.contract import specs
from tests.support import TINY, tiny_fit, tiny_run
from tests.test_loop import metric_lines, run_it
from tests.training import SHAPE, TEACHER, first_state, make_run, random_teacher


@pytest.fixture(scope="module")
def network(data_directory, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "teacher"
    run_it(tiny_run(data_directory, fit=tiny_fit()), path, digits)
    return load(path)


@pytest.fixture(scope="module")
def images(digits):
    return digits.open("test").images


@pytest.fixture(scope="module")
def exported(network, images, tmp_path_factory):
    directory = tmp_path_factory.mktemp("out") / "export"
    card = export(network, directory, images[:64], {"top1": 0.5})
    return directory, card


def test_any_batch_size_answers_like_flax(exported, network, images):
    classify = load_exported(exported[0])
    for size in (1, 2, 7, 64):
        expected = np.asarray(network.logits(images[:size]))
        np.testing.assert_allclose(classify(images[:size]), expected, atol=1e-4)


def test_the_card_says_what_goes_in_and_what_comes_out(exported, network):
    directory, card = exported
    assert json.loads((directory / "card.json").read_text()) == card
    assert card["input"] == {"dtype": "uint8", "shape": ["batch", 8, 8, 1]}
    assert card["classes"] == list("0123456789")
    assert card["platforms"] == ["cpu", "cuda", "tpu"]
    assert card["digest"] == network.digest
    assert card["max_difference"] < 1e-5
    assert sorted(load_file(directory / "weights.safetensors")) == sorted(card["arguments"])


def test_the_files_need_neither_kdjax_nor_flax(exported, network, images, tmp_path):
    np.save(tmp_path / "images.npy", images[:5])
    program = f"""
import json, sys
import jax, numpy as np
from jax import export
from safetensors.numpy import load_file
card = json.load(open(r"{exported[0]}/card.json"))
stored = load_file(r"{exported[0]}/weights.safetensors")
call = export.deserialize(bytearray(open(r"{exported[0]}/model.stablehlo", "rb").read())).call
logits = call([stored[name] for name in card["arguments"]], np.load(r"{tmp_path}/images.npy"))
np.save(r"{tmp_path}/logits.npy", logits)
assert not any(m.split(".")[0] in ("flax", "kdjax") for m in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=tmp_path)
    expected = np.asarray(network.logits(images[:5]))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-4)


@pytest.mark.parametrize("error", [0.1, np.nan])
def test_weights_that_differ_are_never_handed_over(error, network, images, tmp_path, monkeypatch):
    def corrupt(tensors, path):
        name = next(n for n in tensors if n.endswith("classifier/kernel"))
        save_file({**tensors, name: tensors[name] + error}, path)

    monkeypatch.setattr(module, "save_file", corrupt)
    with pytest.raises(ValueError, match=r"differs from the network by .* nothing was written"):
        export(network, tmp_path / "export", images[:64], {})
    assert not (tmp_path / "export").exists()


def test_normalisation_is_inside(network, images, tmp_path):
    """The same weights under another mean give another file."""
    import dataclasses

    shifted = dataclasses.replace(
        network, run=dataclasses.replace(network.run, model=TINY.clone(mean=(0.9,)))
    )
    export(shifted, tmp_path / "shifted", images[:8], {})
    gap = load_exported(tmp_path / "shifted")(images[:8]) - np.asarray(network.logits(images[:8]))
    assert np.abs(gap).max() > 1e-2


def test_no_export_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no readable export"):
        load_exported(tmp_path)


# --- What a student leaves behind --------------------------------------------------------------


def shapes(tree) -> dict[str, tuple[int, ...]]:
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in paths}


def plain(model) -> dict[str, tuple[int, ...]]:
    """What the network has that never met a loss."""
    image = jnp.zeros((1, *SHAPE), jnp.uint8)
    return shapes(jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image))


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.kind.__name__)
def test_what_is_kept_of_a_student_is_the_network_alone(spec):
    term = spec.training or Term(spec.kind())
    fit = tiny_fit(ema_decay=0.9)
    run = make_run(model=spec.student, losses=(Term(CrossEntropy()), term), fit=fit)
    state = jax.eval_shape(partial(first_state, run, Recipe.of(run, TEACHER, 1000)))
    assert shapes(state.variables()) == shapes(state.ema) == plain(spec.student)


def test_adapters_and_banks_stay_behind(digits, images, tmp_path):
    losses = (Term(CrossEntropy()), Term(FitNet()), Term(CRD(negatives=8, width=4)))
    teacher = Teaching(TEACHER, random_teacher())
    path = tmp_path / "student"
    run_it(make_run(losses=losses, fit=tiny_fit()), path, digits, teacher=teacher)
    pulls = [line["adapters"] for line in metric_lines(path) if line["kind"] == "gradients"]
    assert all(pull["fit_net"] > 0 and pull["crd"] > 0 for pull in pulls)
    student = load(path)
    assert shapes(student.variables) == plain(TINY)
    export(student, tmp_path / "export", images[:8], {})
    weights = load_file(tmp_path / "export" / "weights.safetensors")
    assert {name: array.shape for name, array in weights.items()} == plain(TINY)
    trained = sum(array.size for name, array in weights.items() if name.startswith("params/"))
    assert trained == parameter_count(TINY, SHAPE)
