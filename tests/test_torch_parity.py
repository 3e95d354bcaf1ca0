"""Networks against what PyTorch answered, and PyTorch files that do not fit; torch not needed.

`python -m tests.torch_parity.compare` stored the answers, from weights drawn by name.
"""

import functools
import json

import jax
import numpy as np
import pytest

from kdjax.models import NAMED, RowLSTM, infer
from kdjax.students.torch_weights import Mismatch, from_torch, slots, to_torch
from tests.networks import CASES, SHAPE
from tests.torch_parity.compare import EXPECTATIONS
from tests.torch_parity.inputs import CLASSES, MEAN, STD, draw, images, sample

STORED = json.loads(EXPECTATIONS.read_text())
UNPUBLISHED = {"small_cnn", "tiny_cnn", "row_lstm"}

FAST = {
    *("resnet8", "resnet20_pad", "wrn_16_1", "vgg8", "mobilenet_v1"),
    *("mobilenet_v2_half", "mobilenet_v3_small", "efficientnet_b0"),
    *("shuffle_v1", "shuffle_v2", "regnet_y_400mf", "convnext_tiny", "deit_tiny_distilled"),
}
"""Of each family at least one that compiles soon; the others are `slow`."""


def test_every_published_network_was_compared():
    assert set(STORED) == set(NAMED) - UNPUBLISHED
    families = {type(model) for name, model in NAMED.items() if name not in UNPUBLISHED}
    assert {type(NAMED[name]) for name in FAST} == families


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in STORED]
)
def test_logits_and_features_are_those_of_pytorch(name):
    expected = STORED[name]
    model = NAMED[name].clone(num_classes=CLASSES, mean=MEAN, std=STD)
    shape = (expected["size"], expected["size"], 3)
    # PyTorch's keys are known to be one of our namings: the comparison imported and exported them.
    naming = model.torch_names()[0]
    state = {slot.key: draw(slot.key, slot.torch_shape) for slot in slots(model, shape, naming)}
    assert len(state) == expected["arrays"]
    variables = from_torch(model, state, shape)
    options = {"xla_backend_optimization_level": 0}
    forward = jax.jit(functools.partial(infer, model), compiler_options=options)
    found = forward(variables, images(expected["size"]))
    close(found.logits, expected["logits"])
    assert set(expected["features"]) <= set(found.features)
    for key, values in expected["features"].items():
        close(sample(found.features[key]), values)


def close(found, expected):
    """Up to 1e-4 of the largest value."""
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


# --- Import and export -------------------------------------------------------------------------

MODEL = CASES["resnet"].model


@functools.cache
def drawn(model):
    """A PyTorch file of the network."""
    naming = model.torch_names()[0]
    return {slot.key: draw(slot.key, slot.torch_shape) for slot in slots(model, SHAPE, naming)}


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


PUBLISHED = [name for name, case in CASES.items() if case.model.torch_names()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_export_undoes_import_and_import_undoes_export(name):
    model = CASES[name].model
    variables = from_torch(model, drawn(model), SHAPE)
    exported = to_torch(model, variables, SHAPE)
    same_bits(exported, drawn(model))
    same_bits(from_torch(model, exported, SHAPE), variables)


@pytest.mark.parametrize("prefix", ["module.", "model.module.", "_orig_mod.module."])
def test_wrappers_and_counters_are_not_in_the_way(prefix):
    wrapped = {prefix + key: value for key, value in drawn(MODEL).items()}
    wrapped[f"{prefix}bn1.num_batches_tracked"] = np.int64(7)
    same_bits(from_torch(MODEL, wrapped, SHAPE), from_torch(MODEL, drawn(MODEL), SHAPE))


def problems(model, tensors):
    with pytest.raises(Mismatch, match=f"does not fit {type(model).__name__}") as caught:
        from_torch(model, tensors, SHAPE)
    return caught.value.rows


def test_a_renamed_array_is_missing_and_unexpected_and_each_names_the_other():
    tensors = dict(drawn(MODEL))
    tensors["layer1.0.convX.weight"] = tensors.pop("layer1.0.conv1.weight")
    assert problems(MODEL, tensors) == [
        ("missing", "layer1.0.conv1.weight", "nearest: layer1.0.convX.weight"),
        ("unexpected", "layer1.0.convX.weight", "nearest: layer1.0.conv1.weight"),
    ]


def test_an_array_that_nothing_resembles_is_named_without_a_hint():
    assert problems(MODEL, {**drawn(MODEL), "?": np.zeros(3)}) == [("unexpected", "?", "")]


def test_another_shape_is_told_in_pytorchs_layout():
    tensors = {**drawn(MODEL), "fc.weight": np.zeros((3, 6), np.float32)}
    [(kind, key, hint)] = problems(MODEL, tensors)
    assert (kind, key) == ("shape", "fc.weight")
    assert hint == "[3, 6], but classifier needs [5, 6]"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value):
    tensors = {**drawn(MODEL), "bn1.running_var": np.array([1, 1, value, 1], np.float32)}
    [(kind, key, _)] = problems(MODEL, tensors)
    assert (kind, key) == ("not finite", "bn1.running_var")


def test_a_file_of_another_network_tells_how_much_is_wrong():
    rows = problems(MODEL, drawn(CASES["vgg"].model))
    assert {kind for kind, _, _ in rows} == {"missing", "unexpected"}
    with pytest.raises(Mismatch, match=r"ResNet: \d+ missing, \d+ unexpected; first missing: "):
        from_torch(MODEL, drawn(CASES["vgg"].model), SHAPE)


def test_a_network_without_a_counterpart_is_refused():
    with pytest.raises(ValueError, match="RowLSTM has no PyTorch counterpart to import from"):
        from_torch(RowLSTM(), {}, SHAPE)
    with pytest.raises(ValueError, match="RowLSTM has no PyTorch counterpart to export to"):
        to_torch(RowLSTM(), {}, SHAPE)
