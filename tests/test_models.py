"""One contract for every network of the union and every name of the literature."""

import collections
import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import (
    NAMED,
    VGG,
    ConvNeXt,
    Ensemble,
    MobileNetV3,
    Model,
    RegNet,
    ResNet,
    ReusedClassifier,
    ShuffleNetV1,
    ShuffleNetV2,
    SmallCNN,
    VisionModel,
    ViT,
    WideResNet,
)
from kdjax.models.base import MOMENTUM
from kdjax.models.summary import (
    abstract_variables,
    flops,
    parameter_count,
    stage_shapes,
    variable_shapes,
)
from kdjax.students.channels import channels
from kdjax.students.inherit import nested
from kdjax.types import AXIS, Outputs
from tests.networks import CASES, SHAPE, VARIANTS, images, labels_by_place, of_classes

OTHER_VALUES = {
    "num_classes": 7,
    "widths": (4, 5, 6),
    "hidden": 9,
    "head": 9,
    "blocks": (1, 1),
    "inner": 0.5,
    "block": "bottleneck",
    "stem": "imagenet",
    "shortcut": "pad",
    "convolutions": (1, 1),
    "pools": 2,
    "dense": (9,),
    "strides": (1, 2, 1),
    "kernels": (5, 3),
    "hard_swish": (True, True),
    "squeezed": (2, 3, 4),
    "expansions": (1, 2),
    "activation": "relu",
    "groups": 2,
    "group_width": 2,
    "squeeze": 0.5,
    "expansion": 3,
    "patch": 1,
    "heads": 1,
    "head_size": 2,
    "distillation_token": True,
    "members": (SmallCNN(num_classes=5),),
    "weights": (3.0, 1.0),
    "weighting": "entropy",
    "backbone": SmallCNN(widths=(4, 6), hidden=10),
    "width": 9,
    "size": (2, 2),
    "factor": 4,
    "relu": False,
}
"""For every field, a value that is not the one of the first case of its network."""

OTHER_VALUES_OF = {
    (VGG, "widths"): (4, 5),
    (ConvNeXt, "widths"): (4, 5),
    (MobileNetV3, "blocks"): (2, 1),  # as many values as `inner` and `squeezed` have
    (MobileNetV3, "inner"): (0, 6, 10),
    (ShuffleNetV1, "widths"): (12, 36, 48),
    (ShuffleNetV2, "widths"): (4, 6, 8),
    (RegNet, "widths"): (4, 8, 8),
}
"""Where that value does not fit a network, or is its own."""

PUBLISHED_PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet20_pad": 275_572,
    "resnet32_pad": 470_004,
    "resnet44_pad": 664_436,
    "resnet56_pad": 858_868,
    "resnet110_pad": 1_733_812,
    "resnet50_cifar": 23_705_252,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "mobilenet_v2_half": 812_836,
    "shuffle_v1": 949_258,
    "shuffle_v2": 1_355_528,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "wide_resnet50_2": 68_883_240,
    "vgg16_bn": 138_365_992,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "shufflenet_v2_x1_0": 2_278_604,
    "regnet_y_400mf": 4_344_144,
    "convnext_tiny": 28_589_128,
    "deit_tiny": 5_717_416,
    "deit_small": 22_050_664,
    "deit_base": 86_567_656,
    "deit_tiny_distilled": 5_910_800,
    "deit_small_distilled": 22_436_432,
    "deit_base_distilled": 87_338_192,
}
"""With 100 classes for small images, with 1000 for ImageNet."""

FAMILIES = [kind for kind in typing.get_args(Model) if kind is not VisionModel]
every_case = pytest.mark.parametrize("name", CASES)
# Variants of a family share what could fail here; with them it takes too long for every day.
every_family = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ()) for name in CASES],
)
with_batch_norm = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ())
        for name, case in CASES.items()
        if case.batch_norm
    ],
)


@functools.cache
def initialised(model):
    """Variables with no leaf at a value that hides mistakes, such as 0 or 1."""
    shapes = abstract_variables(model.clone(sync_batch_norm=False), SHAPE)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return np.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        fan_in = np.prod(leaf.shape[:-1])
        spread = np.sqrt(2 / fan_in) if path[-1].key == "kernel" else 0.1
        return np.asarray(rng.normal(0, spread, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


# Compiling takes far longer than running.
quickly_compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


@functools.partial(quickly_compiled, static_argnums=0)
def evaluate(model, variables, x):
    return model.apply(variables, x)


def train(model, variables, x):
    return model.apply(variables, x, train=True, mutable=["batch_stats"])


SHARDS = 4
UNROLLED = {ConvNeXt: {"blocks": (1, 1)}}
"""Less of a network whose large kernels take long to compile."""


def learning(model):
    return model.clone(**UNROLLED.get(type(model), {}))


@functools.cache
def learnt(model):
    """Of a step on `images(8)` in shards: outputs, updates, and a gradient of every logit."""
    variables, x = initialised(model), images(8)
    cut = x.reshape(SHARDS, -1, *x.shape[1:])
    shape = (SHARDS, 8 // SHARDS, model.num_classes)
    direction = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def objective(params):
        training = functools.partial(train, model, {**variables, "params": params})
        out, updates = jax.vmap(training, axis_name=AXIS)(cut)
        taught = out.features.get("distillation_head", jnp.zeros((*shape[:2], 1, 1, 1)))
        return jnp.sum((out.logits + taught[..., 0, 0, :]) * direction), (out, updates)

    gradient, (out, updates) = quickly_compiled(jax.grad(objective, has_aux=True))(
        variables["params"]
    )
    return jax.tree.map(lambda a: a.reshape(8, *a.shape[2:]), out), updates, gradient


def close(a, b, tolerance=1e-5):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    for left, right in leaves:
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def test_every_network_of_the_union_has_a_case():
    assert {type(case.model) for case in CASES.values()} == set(FAMILIES)
    assert {type(model) for model in NAMED.values()} == set(FAMILIES) - {Ensemble, ReusedClassifier}


@every_case
def test_features_and_embedding_have_the_declared_names_order_and_shapes(name):
    model, maps, width, _ = CASES[name]
    variables, seen = initialised(model), []

    def forward(x):
        out = model.apply(variables, x)
        seen.extend(out.features.items())  # inside the trace, before JAX sorts the keys
        return out

    out = jax.eval_shape(forward, images(3))
    assert isinstance(out, Outputs)
    assert [(k, v.shape) for k, v in seen] == [(k, (3, *shape)) for k, shape in maps.items()]
    assert out.embedding.shape == (3, width)
    assert out.logits.shape == (3, model.num_classes)
    assert list(stage_shapes(model, SHAPE).items()) == [*maps.items(), ("embedding", (width,))]


@every_family
def test_bfloat16_computes_in_bfloat16_and_keeps_logits_in_float32(name):
    model = CASES[name].model.clone(dtype="bfloat16", sync_batch_norm=False)
    traced = jax.jit(model.apply).trace(initialised(model), images(8))
    out = traced.out_info
    assert out.logits.dtype == jnp.float32
    maps = [x for feature, x in out.features.items() if not feature.startswith("member")]  # logits
    inside = jax.tree.leaves((maps, out.embedding, out.preactivations, out.pooled))
    assert {leaf.dtype.name for leaf in inside} == {"bfloat16"}
    program = str(traced.jaxpr)
    products = re.findall(r"(\w+)\[[\d,]*\] = (?:conv_general_dilated|dot_general)", program)
    assert len(products) == len(re.findall(r"(?:conv_general_dilated|dot_general)\[", program))
    assert set(products) == {"bf16"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=() if x in ("small_cnn", "vit", "ensemble") else pytest.mark.slow)
        for x in CASES
    ],
)
def test_bfloat16_says_nearly_the_same_and_keeps_variables_in_float32(name):
    model = CASES[name].model.clone(dtype="bfloat16")
    variables = initialised(model)
    local = functools.partial(train, model.clone(sync_batch_norm=False))
    _, updates = jax.eval_shape(local, variables, images(8))
    assert {leaf.dtype.name for leaf in jax.tree.leaves((variables, updates))} == {"float32"}
    exact = evaluate(CASES[name].model, variables, images(8))
    rounded = evaluate(model, variables, images(8))
    assert 0 < jnp.abs(exact.logits - rounded.logits).max() < 0.1 * jnp.abs(exact.logits).max()


ENDS = {
    "ResNet": nn.relu,
    "WideResNet": None,  # its features are sums that the next layer normalises and rectifies
    "VGG": nn.relu,
    "SmallCNN": nn.relu,
    "MobileNetV1": nn.relu6,
    "ShuffleNetV1": nn.relu,
    "ShuffleNetV2": nn.relu,
    "RegNet": nn.relu,
    "Ensemble": nn.relu,  # the stages of its first member, a ResNet
    "ReusedClassifier": nn.relu,  # those of its backbone
}
"""What the stages of a family end with; those of the others are linear."""


@every_case
def test_preactivations_are_what_the_last_relu_of_each_stage_reads(name):
    model, maps, *_ = CASES[name]
    family = type(model).__name__
    out = evaluate(model, initialised(model), images(8))
    stages = {stage for stage in maps if stage.startswith("stage")} if family in ENDS else set()
    ends = {"projected"} if family == "ReusedClassifier" and model.relu else set()
    assert set(out.preactivations) == stages | ends
    for stage, before in out.preactivations.items():
        assert before.shape == out.features[stage].shape
        assert (before < 0).any()
        if end := ENDS[family]:
            np.testing.assert_array_equal(end(before), out.features[stage])


@every_case
def test_the_embedding_is_the_mean_of_the_pooled_map_and_of_no_other(name):
    model = CASES[name].model
    out = evaluate(model, initialised(model), images(8))
    for stage, pooled in out.pooled.items():
        assert stage in out.features
        close(pooled.mean(axis=(1, 2)), out.embedding)
    means = [x.mean(axis=(1, 2)) for x in out.features.values()]
    found = [m for m in means if m.shape == out.embedding.shape and np.allclose(m, out.embedding)]
    assert len(out.pooled) >= len(found[:1]), "say in pooled that the embedding is a mean"


def test_preactivations_of_a_wide_resnet_are_what_the_next_batch_norm_makes_of_its_sums():
    model = CASES["wide_resnet"].model
    variables = initialised(model)
    out = evaluate(model, variables, images(8))
    last = len(model.blocks)
    for i in range(1, last + 1):
        layer = f"stage{i + 1}_block0_bn1" if i < last else "final_bn"
        params, stats = variables["params"][layer], variables["batch_stats"][layer]
        expected = np_norm(np.asarray(out.features[f"stage{i}"], np.float64), params, stats)
        close(out.preactivations[f"stage{i}"], expected)


@every_family
def test_evaluation_is_deterministic_and_blind_to_the_rest_of_the_batch(name):
    model = CASES[name].model
    variables = initialised(model)
    ours, others = images(2, seed=1), images(6, seed=2)
    first = evaluate(model, variables, jnp.concatenate([ours, others]))
    again = evaluate(model, variables, jnp.concatenate([ours, others]))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    elsewhere = evaluate(model, variables, jnp.concatenate([images(6, seed=3), ours]))
    close(jax.tree.map(lambda a: a[:2], first), jax.tree.map(lambda a: a[6:], elsewhere))
    assert not np.allclose(first.logits[0], first.logits[1])


@every_case
def test_only_batch_norm_keeps_statistics(name):
    assert ("batch_stats" in initialised(CASES[name].model)) == CASES[name].batch_norm


@with_batch_norm
def test_training_moves_every_running_statistic_and_evaluation_reads_them(name):
    model = CASES[name].model
    variables, (_, updates, _) = initialised(model), learnt(model)
    updates = jax.tree.map(lambda a: a[0], updates)
    before = jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
    after = jax.tree.leaves(updates["batch_stats"])
    still = [
        jax.tree_util.keystr(p) for (p, a), b in zip(before, after, strict=True) if (a == b).any()
    ]
    assert before
    assert not still
    moved = evaluate(model, {**variables, **updates}, images(8))
    assert not np.allclose(evaluate(model, variables, images(8)).logits, moved.logits)


@every_family
def test_the_gradient_reaches_every_parameter(name):
    *_, gradient = learnt(learning(CASES[name].model))
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    assert not [jax.tree_util.keystr(p) for p, leaf in leaves if not jnp.isfinite(leaf).all()]
    assert not [jax.tree_util.keystr(p) for p, leaf in leaves if not leaf.any()]


def test_the_class_head_learns_alone_and_both_heads_answer():
    model = CASES["vit_distilled"].model
    variables = initialised(model)
    training, *_ = learnt(model)
    evaluation = evaluate(model, variables, images(8))
    ours, theirs = (
        evaluation.features[name][:, 0, 0] for name in ("class_head", "distillation_head")
    )
    assert not np.allclose(ours, theirs)
    close(training.logits, ours)  # without batch norm or dropout
    close(evaluation.logits, (ours + theirs) / 2)


@every_family
def test_normalisation_happens_inside_and_bytes_are_fractions(name):
    model, x = CASES[name].model, images(8)
    plain = model.clone(mean=(0.0,), std=(1.0,))
    by_hand = (x / np.float32(255) - np.float32(model.mean)) / np.float32(model.std)
    expected = evaluate(plain, initialised(model), by_hand)
    close(evaluate(model, initialised(model), x), expected)


@pytest.mark.parametrize("name", ["small_cnn", "ensemble"])
def test_every_colour_has_its_own_normalisation(name):
    mean, std = (0.1, 0.4, 0.6), (0.2, 0.3, 0.5)
    plain = CASES[name].model.clone(mean=(0.0,), std=(1.0,))
    inside = plain.clone(mean=mean, std=std)
    variables, x = initialised(plain), images(8) / np.float32(255)
    by_hand = evaluate(plain, variables, (x - jnp.asarray(mean)) / jnp.asarray(std))
    close(evaluate(inside, variables, x), by_hand)


KEPT = {MobileNetV3: 0.99}
"""Of running statistics, where it is another share than everywhere else."""


@with_batch_norm
def test_training_in_shards_is_evaluation_under_the_statistics_of_the_whole_batch(name):
    model = CASES[name].model
    variables, (out, updates, _) = initialised(model), learnt(model)
    for i in range(1, SHARDS):
        close(*(jax.tree.map(lambda a, i=i: a[i], updates) for i in (0, i)))
    kept = KEPT.get(type(model), MOMENTUM)
    seen = jax.tree.map(
        lambda new, old: (new[0] - kept * old) / (1 - kept),
        updates["batch_stats"],
        variables["batch_stats"],
    )
    expected = evaluate(model, {**variables, "batch_stats": seen}, images(8))
    close(out.logits, expected.logits, 1e-3)


@pytest.mark.parametrize("name", ["small_cnn", "resnet"])
def test_synchronised_batch_norm_makes_shards_equal_one_batch(name):
    """What is between the shards, too; it is one layer for all families."""
    model = CASES[name].model
    variables, (out, updates, _) = initialised(model), learnt(model)
    one_batch = functools.partial(train, model.clone(sync_batch_norm=False))
    whole, expected = quickly_compiled(one_batch)(variables, images(8))
    close(out, whole)
    for i in range(SHARDS):
        close(jax.tree.map(lambda a, i=i: a[i], updates), expected)


def nth(labels):
    """Each label with the number of times it has occurred before."""
    seen = collections.Counter()
    pairs = []
    for label in labels.tolist():
        pairs.append((label, seen[label]))
        seen[label] += 1
    return pairs


@every_case
def test_reordering_channels_that_belong_together_changes_nothing(name):
    """What the trace says: channels in the same places may be permuted, so they may be cut."""
    model, variables = CASES[name].model, initialised(CASES[name].model)
    axes = channels(model, SHAPE)
    alike = labels_by_place(axes)
    turned = {
        a: b for group in alike.values() for a, b in zip(group, np.roll(group, 1), strict=True)
    }
    flat = jax.tree_util.tree_leaves_with_path(variables)
    arrays = {tuple(part.key for part in path): np.array(leaf) for path, leaf in flat}
    for axis, labels in axes.items():
        at = {pair: place for place, pair in enumerate(nth(labels))}
        order = [at[turned[label], n] for label, n in nth(labels)]
        groups = sum(other.path == axis.path and other.reads == axis.reads for other in axes)
        array = np.moveaxis(arrays[axis.path], -1, 0)  # a view: what it writes comes first
        part = np.split(array, groups)[axis.group] if array.ndim > 1 else array
        if axis.reads:
            part[...] = part[..., order]
        else:
            part[...] = part[order]
    expected = evaluate(model, variables, images(8)).logits
    close(evaluate(model, nested(arrays), images(8)).logits, expected)
    if axes:
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), nested(arrays), variables)
        assert any(jax.tree.leaves(moved))


@every_case
def test_all_but_the_first_block_of_a_stage_can_be_left_out(name):
    model = CASES[name].model
    shapes = variable_shapes(model, SHAPE)
    later = re.compile(r"((member\d+|network)/)?stage\d+_block[1-9]")
    first = {x: v for x, v in shapes.items() if not later.match("/".join(x[1:]))}
    assert first == variable_shapes(model.scaled(1.0, 0.01), SHAPE)


@every_case
def test_a_scaled_network_keeps_its_fields_and_loses_channels_and_blocks(name):
    other = {"mean": (0.1,), "std": (0.2,), "dtype": "bfloat16"}
    model = of_classes(CASES[name].model, 4).clone(**other, sync_batch_norm=False)
    assert model.scaled(1.0, 1.0) == model
    half, tiny = model.scaled(0.5, 1.0), model.scaled(0.001, 0.001)
    for small in (half, tiny):
        assert type(small) is type(model)
        assert small.num_classes == 4
        assert all(getattr(small, field) == value for field, value in other.items())
        assert parameter_count(small, SHAPE) < parameter_count(model, SHAPE)
    whole = variable_shapes(model, SHAPE)
    for path, shape in variable_shapes(half, SHAPE).items():
        assert all(a <= b for a, b in zip(shape, whole[path], strict=True))


def structure(model):
    """Shapes and types of the outputs and of the variables."""
    result = jax.eval_shape(model.init_with_output, jax.random.key(0), images(1))
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), result)


SHARED = {"mean", "std", "dtype", "sync_batch_norm"}
"""Fields of every network, whose tests above go through all families."""

CASE_OF = {type(case.model): case for case in reversed(CASES.values())}


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_no_field_is_dead(kind):
    model = CASE_OF[kind].model
    fields = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
    fields -= SHARED | {"image_size", "layer_scale", "dropout", "drop_path"}  # with their own tests
    fields -= {"num_classes"} if kind is Ensemble else set()  # what its members have, or an error
    assert not fields - set(OTHER_VALUES), "give the new field another value in OTHER_VALUES"
    variables, reference = initialised(model), structure(model)

    def logits(model):
        return evaluate(model, variables, images(8)).logits

    def changes(field):
        value = OTHER_VALUES_OF.get((kind, field), OTHER_VALUES[field])
        assert value != getattr(model, field)
        other = model.clone(**{field: value})
        return structure(other) != reference or not np.allclose(logits(other), logits(model))

    assert not [field for field in fields if not changes(field)]


def test_a_vision_transformer_takes_images_of_one_size():
    with pytest.raises(ValueError, match=r"ViT.image_size: 4x8, but the images have 10x8"):
        stage_shapes(CASES["vit"].model.clone(image_size=(4, 8)), SHAPE)


def test_layer_scale_is_where_training_starts():
    model = CASES["convnext"].model.clone(layer_scale=0.1)

    @jax.jit
    def scale():
        return model.init(jax.random.key(0), images(1))["params"]["stage1_block0_layer_scale"]

    np.testing.assert_array_equal(scale(), np.full(4, 0.1, np.float32))


def test_models_are_values():
    assert NAMED["resnet20"] == ResNet(blocks=(3, 3, 3))
    assert hash(NAMED["resnet20"]) == hash(ResNet(blocks=(3, 3, 3)))
    assert NAMED["resnet20"] != NAMED["resnet20"].clone(num_classes=100)


# --- Arithmetic against plain NumPy in float64 -------------------------------------------------


def np_conv(x, layer, stride=1):
    kernel = np.asarray(layer["kernel"], np.float64)
    size = kernel.shape[0]
    pad = size // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::stride, ::stride], kernel)


def np_norm(x, params, stats):
    scale, bias, mean, var = (
        np.asarray(a, np.float64)
        for a in (params["scale"], params["bias"], stats["mean"], stats["var"])
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def np_resnet(model, variables, x):
    params, stats = variables["params"], variables["batch_stats"]

    def step(x, conv, bn, stride=1):
        return np_norm(np_conv(x, params[conv], stride), params[bn], stats[bn])

    x = np.maximum(step(x, "stem", "stem_bn"), 0)
    for i, count in enumerate(model.blocks, start=1):
        for j in range(count):
            name, stride = f"stage{i}_block{j}", 2 if i > 1 and j == 0 else 1
            y = np.maximum(step(x, f"{name}_conv1", f"{name}_bn1", stride), 0)
            y = step(y, f"{name}_conv2", f"{name}_bn2")
            if f"{name}_shortcut" in params:
                x = step(x, f"{name}_shortcut", f"{name}_shortcut_bn", stride)
            x = np.maximum(x + y, 0)
    return x.mean(axis=(1, 2)) @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def np_small_cnn(model, variables, x):
    params, stats = variables["params"], variables["batch_stats"]
    for i in range(1, len(model.widths) + 1):
        x = np_norm(np_conv(x, params[f"conv{i}"]), params[f"bn{i}"], stats[f"bn{i}"])
        x = np.maximum(x, 0)
        height, width = x.shape[1] // 2, x.shape[2] // 2
        x = x[:, : 2 * height, : 2 * width]
        x = x.reshape(len(x), height, 2, width, 2, -1).max(axis=(2, 4))
    kernel = np.asarray(params["dense"]["kernel"], np.float64)
    x = np.einsum("nhwc,hwcd->nd", x, kernel) + params["dense"]["bias"]
    x = np.maximum(x, 0)
    return x @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def np_lstm(cell, slices):
    """The last state after slices `[n, t, d]`."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    cell = jax.tree.map(lambda x: np.asarray(x, np.float64), cell)
    state = memory = np.zeros((len(slices), len(cell["hi"]["bias"])))
    for t in range(slices.shape[1]):
        read, forget, new, put_out = (
            slices[:, t] @ cell[f"i{g}"]["kernel"]
            + state @ cell[f"h{g}"]["kernel"]
            + cell[f"h{g}"]["bias"]
            for g in "ifgo"
        )
        memory = sigmoid(forget) * memory + sigmoid(read) * np.tanh(new)
        state = sigmoid(put_out) * np.tanh(memory)
    return state


def np_row_lstm(model, variables, x):
    params = variables["params"]
    rows = np_lstm(params["rows"], x.reshape(*x.shape[:2], -1))
    columns = np_lstm(params["columns"], x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1))
    embedding = np.concatenate([rows, columns], axis=1)
    return embedding @ params["classifier"]["kernel"] + params["classifier"]["bias"]


NUMPY = {
    "small_cnn": np_small_cnn,
    "resnet": np_resnet,
    "resnet_wider_than_its_stem": np_resnet,
    "row_lstm": np_row_lstm,
}
"""The other families are compared with PyTorch, in test_torch_parity."""


@pytest.mark.parametrize("name", NUMPY)
def test_evaluation_equals_plain_numpy(name):
    model = CASES[name].model
    variables, x = initialised(model), images(8)
    pixels = (np.asarray(x, np.float64) / 255 - 0.5) / 0.5
    expected = NUMPY[name](model, variables, pixels)
    close(evaluate(model, variables, x).logits, expected)


def test_batch_norm_keeps_nine_tenths_and_the_biased_variance():
    model = SmallCNN(widths=(4,), hidden=3, sync_batch_norm=False)
    variables, x = initialised(model), images(5)
    _, updates = quickly_compiled(functools.partial(train, model))(variables, x)
    pixels = (np.asarray(x, np.float64) / 255 - 0.5) / 0.5
    seen = np_conv(pixels, variables["params"]["conv1"]).reshape(-1, 4)
    old = variables["batch_stats"]["bn1"]
    expected = {
        "mean": 0.9 * np.asarray(old["mean"]) + 0.1 * seen.mean(axis=0),
        "var": 0.9 * np.asarray(old["var"]) + 0.1 * seen.var(axis=0),
    }
    close(updates["batch_stats"]["bn1"], expected)


def test_convolutions_start_with_variance_two_over_fan_out():
    class OneConvolution(VisionModel):
        @nn.compact
        def __call__(self, images, train=False):
            return self.conv(64, 3, name="conv")(images)

    variables = jax.jit(OneConvolution().init)(jax.random.key(0), jnp.zeros((1, 1, 1, 16)))
    spread = variables["params"]["conv"]["kernel"].std()
    assert spread == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)


# --- The networks of the literature ------------------------------------------------------------


def test_every_published_name_has_a_published_size():
    assert set(NAMED) - set(PUBLISHED_PARAMETERS) == {"small_cnn", "tiny_cnn", "row_lstm"}


def as_published(name):
    """The network for the classes of the table above, and the shape of its images."""
    model = NAMED[name]
    if model.num_classes != 10:
        return model, (224, 224, 3)
    return model.clone(num_classes=100), (32, 32, 3)


def repeated(model, shape):
    """Arrays of the network and how often each occurs: a stage's third block is like its second."""
    shallow = model
    if isinstance(model, ResNet | WideResNet | ViT):
        shallow = model.clone(blocks=tuple(min(count, 2) for count in model.blocks))
    for path, size in variable_shapes(shallow, shape).items():
        second = re.match(r"stage(\d+)_block1_", path[1])
        times = model.blocks[int(second[1]) - 1] - 1 if shallow is not model and second else 1
        yield path, size, times


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_the_whole_network_has_the_size_of_its_name(name):
    assert parameter_count(*as_published(name)) == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_size_and_depth_are_those_of_the_name(name):
    arrays = list(repeated(*as_published(name)))
    counts = [math.prod(size) * times for path, size, times in arrays if path[0] == "params"]
    assert sum(counts) == PUBLISHED_PARAMETERS[name]
    if found := re.match(r"(?:resnet|vgg)(\d+)", name):
        # Projections on the shortcut do not count as layers.
        layers = sum(
            times for path, _, times in arrays if path[-1] == "kernel" and "shortcut" not in path[1]
        )
        # A benchmark VGG is called after the network with two hidden layers it comes from.
        missing = 2 if name in ("vgg8", "vgg11", "vgg13", "vgg16", "vgg19") else 0
        assert layers + missing == int(found[1])


@pytest.mark.parametrize(
    ("name", "stem", "widths"),
    [
        ("resnet8", 16, (16, 32, 64)),
        ("resnet8x4", 32, (64, 128, 256)),
    ],
)
def test_stages_halve_the_resolution(name, stem, widths):
    assert stage_shapes(NAMED[name], (32, 32, 3)) == {
        "stem": (32, 32, stem),
        "stage1": (32, 32, widths[0]),
        "stage2": (16, 16, widths[1]),
        "stage3": (8, 8, widths[2]),
        "embedding": (widths[2],),
    }


# --- Cost ----------------------------------------------------------------------------------


def test_resnet20_costs_its_forty_million_multiply_adds():
    """The 40.55 M of the plain network, and two 1x1 projections and the classifier."""
    stem = 32 * 32 * 16 * (9 * 3)
    stage1 = 6 * 32 * 32 * 16 * (9 * 16)
    stage2 = 16 * 16 * 32 * (9 * 16 + 16 + 5 * 9 * 32)
    stage3 = 8 * 8 * 64 * (9 * 32 + 32 + 5 * 9 * 64)
    total = stem + stage1 + stage2 + stage3 + 64 * 10
    assert total == 40_813_184
    assert flops(NAMED["resnet20"], (32, 32, 3)) == 2 * total


def test_resnet8x4_costs_what_its_layers_cost():
    stem = 32 * 32 * 32 * (9 * 3)
    stage1 = 32 * 32 * 64 * (9 * 32 + 32 + 9 * 64)
    stage2 = 16 * 16 * 128 * (9 * 64 + 64 + 9 * 128)
    stage3 = 8 * 8 * 256 * (9 * 128 + 128 + 9 * 256)
    total = stem + stage1 + stage2 + stage3 + 256 * 100
    assert flops(NAMED["resnet8x4"].clone(num_classes=100), (32, 32, 3)) == 2 * total


def test_resnet50_costs_what_torchvision_says():
    """4.09 G with the stride on the 3x3 convolution; on the 1x1 before it, it would be 3.8 G."""
    assert flops(NAMED["resnet50"], (224, 224, 3)) == 2 * 4_089_184_256


def test_small_cnn_costs_what_its_layers_cost():
    convolutions = 8 * 8 * 4 * 9 + 4 * 4 * 8 * (9 * 4)
    dense = 2 * 2 * 8 * 32 + 32 * 10
    assert flops(NAMED["tiny_cnn"], (8, 8, 1)) == 2 * (convolutions + dense)


def test_cost_counts_groups_loops_and_nested_calls():
    class Odd(VisionModel):
        @nn.compact
        def __call__(self, images, train=False):
            grouped = self.conv(6, 3, feature_group_count=3, name="grouped")
            x = jax.checkpoint(lambda x: nn.relu(x))(grouped(self.pixels(images)))
            kernel = self.param("square", nn.initializers.ones, (6, 6))
            x, _ = jax.lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, kernel), None), x, length=5)
            return Outputs(x.mean(axis=(1, 2)), {}, x.mean(axis=(1, 2)))

    pixels = 10 * 8
    assert flops(Odd(), SHAPE) == 2 * (pixels * 6 * 9 * 1 + 5 * pixels * 6 * 6)


def test_batch_norm_statistics_are_not_parameters():
    model = SmallCNN(num_classes=5, widths=(4,), hidden=7)
    assert parameter_count(model, (8, 8, 1)) == 9 * 4 + 2 * 4 + (4 * 4 * 4 * 7 + 7) + (7 * 5 + 5)


def test_the_summary_touches_no_device():
    program = (
        "from kdjax.models import NAMED; from kdjax.models.summary import *;"
        "m = NAMED['resnet8']; s = (32, 32, 3);"
        "print(parameter_count(m, s), flops(m, s), len(stage_shapes(m, s)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_PLATFORMS": "no_such_platform"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["78042", "25003264", "5"]


# --- A network that is only half written -----------------------------------------------------


def test_too_many_stages_for_the_image_are_refused():
    with pytest.raises(ValueError, match=r"SmallCNN.widths: 4 stages .* 8x8 .* at most 3"):
        parameter_count(SmallCNN(widths=(4, 4, 4, 4)), (8, 8, 1))


class Unfinished(VisionModel):
    pass


def test_an_unfinished_network_says_what_is_missing():
    with pytest.raises(TypeError, match="Unfinished does not define __call__"):
        Unfinished().apply({}, images(1))
    with pytest.raises(ValueError, match="Unfinished does not say how it shrinks"):
        Unfinished().scaled(0.5, 0.5)
    assert Unfinished().torch_names() == ()
