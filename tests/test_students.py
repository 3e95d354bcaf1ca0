"""Students made from the teacher: derived, cut out, recalibrated."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import NAMED, ResNet, SmallCNN, VisionModel
from kdjax.students.channels import channels, group_counts
from kdjax.students.derive import derive
from kdjax.students.inherit import inherit, nested
from kdjax.students.recalibrate import recalibrate
from kdjax.types import Outputs
from tests.networks import CASES, SHAPE, VARIANTS, labels_by_place


class Separable(SmallCNN):
    """A family of its own, as the cutting code has never seen one: depthwise convolutions."""

    @nn.compact
    def __call__(self, images, train=False):
        first, second = self.widths
        x = nn.relu(self.conv(first, 3, name="stem")(self.pixels(images)))
        x = self.conv(first, 3, feature_group_count=first, name="depthwise")(x)
        x = nn.relu(self.batch_norm(train, name="depthwise_bn")(x))
        x = nn.relu(self.conv(second, 1, name="pointwise")(x)).mean(axis=(1, 2))
        return Outputs(nn.Dense(self.num_classes, name="classifier")(x), {}, x)


TEACHERS = {
    "narrow_cnn": SmallCNN(num_classes=5, widths=(6, 8), hidden=12),
    "resnet_as_wide_as_its_stem": ResNet(num_classes=5, blocks=(2, 1), widths=(6, 6, 8)),
    "resnet_wider_than_its_stem": ResNet(num_classes=5, blocks=(2, 1), widths=(4, 8, 12)),
    "separable": Separable(num_classes=5, widths=(10, 16)),
}

every_teacher = pytest.mark.parametrize("teacher", TEACHERS.values(), ids=TEACHERS)


def cases(names, every_day):
    """All of them, but those that are not of every day are slow."""
    return [
        pytest.param(*(x if isinstance(x, tuple) else (x,)), marks=marks)
        for x in names
        for marks in [() if x in every_day else pytest.mark.slow]
    ]


# That the trace knows all variants of a family, test_models sees by reordering channels.
FAMILY = set(CASES) - VARIANTS
every_family = pytest.mark.parametrize("name", cases(CASES, FAMILY))

FAMILIES = {name: case.model for name, case in CASES.items()} | {
    # Kinds of channels halve exactly: both shuffle and split, so that others cannot line up.
    "shufflenet_v1": CASES["shufflenet_v1"].model.clone(widths=(24, 72, 168)),
    "shufflenet_v2": CASES["shufflenet_v2"].model.clone(widths=(4, 8, 16)),
    "shufflenet_v2_imagenet": CASES["shufflenet_v2_imagenet"].model.clone(widths=(4, 8, 16)),
}
NARROWER = {
    **{name: derive(model, width=0.5) for name, model in FAMILIES.items()},
    # Layer norm averages over the stream: without its dead channels it is another function.
    **{name: FAMILIES[name].clone(expansion=1) for name in ("convnext", "vit", "vit_distilled")},
}


def images(count, seed=0):
    """Noise, every image of its own brightness and tint."""
    rng = np.random.default_rng(seed)
    tint = rng.uniform(0, 1, (count, 1, 1, SHAPE[-1]))
    return (tint * rng.integers(0, 256, (count, *SHAPE))).astype(np.uint8)


@functools.cache
def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images(1)))


def filled(model, seed=0):
    """Variables of random values, the statistics too, so that no two channels are alike."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            spread = np.sqrt(2 / math.prod(leaf.shape[:-1]))
            return rng.standard_normal(leaf.shape, np.float32) * np.float32(spread)
        low = -0.2 if path[-1].key == "mean" else 0.5
        return rng.uniform(low, low + 0.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(model))


def cut(teacher, variables, student):
    return inherit(teacher, variables, student, filled(student, seed=99), SHAPE)


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def logits(model, variables, x):
    return model.apply(variables, x).logits


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def count(variables):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def with_dead_channels(teacher, student, variables):
    """Silence as many channels of each kind, drawn at random, as the student has to lose.

    What writes them becomes zero: kernels and biases, and batch norm's scale and bias.
    """
    rng = np.random.default_rng(1)
    groups = [group_counts(model, SHAPE) for model in (teacher, student)]
    whole = frozenset(dict(groups[0].items() ^ groups[1].items()))
    old, new = (channels(model, SHAPE, whole) for model in (teacher, student))
    kinds = labels_by_place(new)
    assert labels_by_place(old).keys() == kinds.keys(), "the two do not line up"
    dead: set[int] = set()
    for place, labels in labels_by_place(old).items():
        dead |= set(rng.permutation(labels)[len(kinds[place]) :].tolist())
    flat = jax.tree_util.tree_leaves_with_path(variables)
    arrays = {tuple(part.key for part in path): np.array(leaf) for path, leaf in flat}
    for axis, labels in old.items():
        if axis.path[0] == "params" and not axis.reads and not axis.part:
            parts = sum(x.path == axis.path and not x.reads and not x.part for x in old)
            part = np.split(arrays[axis.path], parts, axis=-1)[axis.group]  # a view
            part *= ~np.isin(labels, list(dead))
    return nested(arrays)


# --- derive ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "width", "depth", "expected"),
    [
        (SmallCNN(), 0.5, 1.0, SmallCNN(widths=(8, 16), hidden=128)),
        (SmallCNN(num_classes=7), 0.5, 0.5, SmallCNN(num_classes=7, widths=(8, 16), hidden=128)),
        (NAMED["resnet20"], 1.0, 0.67, ResNet(blocks=(2, 2, 2))),
        (NAMED["resnet32x4"], 0.25, 0.2, ResNet(blocks=(1, 1, 1), widths=(8, 16, 32, 64))),
        (
            ResNet(blocks=(3, 2), mean=(0.1,), std=(0.2,), dtype="bfloat16", widths=(9, 9, 3)),
            0.01,
            0.01,
            ResNet(blocks=(1, 1), mean=(0.1,), std=(0.2,), dtype="bfloat16", widths=(1, 1, 1)),
        ),
    ],
)
def test_derive_scales_the_sizes_and_keeps_the_rest(teacher, width, depth, expected):
    assert derive(teacher, width=width, depth=depth) == expected


@pytest.mark.parametrize("name", NAMED)
def test_derive_changes_nothing_by_itself(name):
    assert derive(NAMED[name]) == NAMED[name]


@pytest.mark.parametrize("field", ["width", "depth"])
@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, math.nan])
def test_a_share_outside_its_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: {value}.*\(0, 1\]"):
        derive(SmallCNN(), **{field: value})


# --- inherit: every family ---------------------------------------------------------------------


@every_family
def test_a_smaller_student_inherits_all_its_values(name):
    teacher = CASES[name].model
    student = derive(teacher, width=0.5, depth=0.5)
    nowhere = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), filled(student))
    inherited = inherit(teacher, filled(teacher), student, nowhere, SHAPE)
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), inherited)
    assert described == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes(student))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(inherited))
    assert count(inherited) < count(shapes(teacher))


def test_odd_halves_of_split_channels_inherit_most_values():
    """Where the student splits its channels the teacher does not: some have no counterpart."""
    teacher = CASES["shufflenet_v2"].model.clone(widths=(6, 20, 44))
    student = derive(teacher, width=0.5, depth=0.5)
    assert [width // 2 % 2 for width in student.widths[1:]] == [1, 1]
    nowhere = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), filled(student))
    leaves = jax.tree.leaves(inherit(teacher, filled(teacher), student, nowhere, SHAPE))
    found = sum(int(np.isfinite(leaf).sum()) for leaf in leaves)
    assert 0.8 < found / sum(leaf.size for leaf in leaves) <= 1


@pytest.mark.parametrize("name", cases([*TEACHERS, *CASES], {*TEACHERS, *FAMILY}))
def test_nothing_removed_means_the_same_bits(name):
    teacher = TEACHERS[name] if name in TEACHERS else CASES[name].model
    variables = filled(teacher)
    same_bits(cut(teacher, variables, derive(teacher)), variables)


@every_family
def test_cutting_dead_channels_of_any_family_changes_no_logit(name):
    teacher, student = FAMILIES[name], NARROWER[name]
    variables = with_dead_channels(teacher, student, filled(teacher))
    inherited = cut(teacher, variables, student)
    assert count(inherited) < count(variables)
    expected = logits(teacher, variables, images(4))
    assert np.std(expected, axis=0).max() > 1e-3
    found = logits(student, inherited, images(4))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_head_of_attention_is_kept_whole():
    teacher = CASES["vit"].model.clone(heads=3)
    variables, student = filled(teacher), teacher.clone(heads=1)
    layer = "stage1_block0_qkv"
    kernel = variables["params"][layer]["kernel"].reshape(9, 3, 3, 3)  # q, k, v; head; channel
    kernel[:, :, 1] *= 10
    bias = cut(teacher, variables, student)["params"][layer]["bias"]
    expected = variables["params"][layer]["bias"].reshape(3, 3, 3)[:, 1]
    same_bits(bias, expected.reshape(-1))


def test_the_student_does_not_share_memory_with_its_teacher():
    teacher = TEACHERS["narrow_cnn"]
    variables = filled(teacher)
    inherited = cut(teacher, variables, teacher)
    jax.tree.map(lambda leaf: leaf.fill(0), inherited)
    same_bits(variables, filled(teacher))


# --- inherit: width ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width"),
    cases(
        itertools.product(TEACHERS, (0.2, 0.5, 0.8)),
        {("narrow_cnn", 0.2), ("resnet_wider_than_its_stem", 0.8), ("separable", 0.5)},
    ),
)
def test_cutting_dead_channels_changes_no_logit(name, width):
    teacher = TEACHERS[name]
    student = derive(teacher, width=width)
    variables = with_dead_channels(teacher, student, filled(teacher))
    inherited = cut(teacher, variables, student)
    assert count(inherited) < count(variables)
    x = images(4)
    expected = logits(teacher, variables, x)
    assert np.std(expected, axis=0).max() > 1e-2
    np.testing.assert_allclose(logits(student, inherited, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("widths", [(4, 8, 5), (2, 8, 12), (4, 3, 12), (3, 7, 11)])
def test_each_group_may_shrink_on_its_own(widths):
    teacher = TEACHERS["resnet_wider_than_its_stem"]
    student = teacher.clone(widths=widths)
    variables = with_dead_channels(teacher, student, filled(teacher))
    found = logits(student, cut(teacher, variables, student), images(4))
    expected = logits(teacher, variables, images(4))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_channels_with_the_largest_kernels_are_kept_in_their_order():
    teacher = SmallCNN(num_classes=5, widths=(6, 4), hidden=5)
    variables = filled(teacher)
    kernel = variables["params"]["conv1"]["kernel"]
    kernel *= np.float32([1, 9, 2, 1, 7, 8]) / np.abs(kernel).sum(axis=(0, 1, 2))
    student = teacher.clone(widths=(3, 4))
    inherited = cut(teacher, variables, student)
    best = [1, 4, 5]
    params, stats = inherited["params"], inherited["batch_stats"]
    same_bits(params["conv1"]["kernel"], kernel[..., best])
    same_bits(params["conv2"]["kernel"], variables["params"]["conv2"]["kernel"][:, :, best])
    for name in ("scale", "bias"):
        same_bits(params["bn1"][name], variables["params"]["bn1"][name][best])
    for name in ("mean", "var"):
        same_bits(stats["bn1"][name], variables["batch_stats"]["bn1"][name][best])


class Grouped(VisionModel):
    """A residual stream that is normalised in groups, as in no family of ours."""

    width: int = 8
    groups: int | None = 2
    size: int | None = None

    def norm(self, name):
        return nn.GroupNorm(self.groups, group_size=self.size, name=name)

    @nn.compact
    def __call__(self, images, train=False):
        del train
        x = self.conv(self.width, 3, name="stem")(self.pixels(images))
        y = nn.relu(self.norm("stem_norm")(x))
        x = x + self.conv(self.width, 3, name="conv")(y)
        x = nn.relu(self.norm("norm")(x)).mean(axis=(1, 2))
        return Outputs(nn.Dense(self.num_classes, name="classifier")(x), {}, x)


@pytest.mark.parametrize(
    ("student", "kept"),
    [
        ({"width": 4}, [1, 3, 5, 6]),
        ({"width": 4, "groups": None, "size": 2}, [1, 3, 5, 6]),
        ({"width": 6}, [1, 2, 3, 5, 6, 7]),
        ({}, [*range(8)]),
    ],
    ids=["half", "of a size", "most", "all"],
)
def test_each_group_of_a_group_norm_keeps_its_own_best(student, kept):
    """The four best are all of the first group, whose statistics would serve no other."""
    teacher = Grouped(num_classes=5)
    variables = filled(teacher)
    for layer in ("stem", "conv"):
        kernel = variables["params"][layer]["kernel"]
        kernel *= np.float32([6, 8, 7, 9, 1, 4, 3, 2]) / np.abs(kernel).sum(axis=(0, 1, 2))
    params = cut(teacher, variables, teacher.clone(**student))["params"]
    old = variables["params"]
    same_bits(params["stem"]["kernel"], old["stem"]["kernel"][..., kept])
    same_bits(params["conv"]["kernel"], old["conv"]["kernel"][:, :, kept][..., kept])
    same_bits(params["classifier"]["kernel"], old["classifier"]["kernel"][kept])
    for norm in ("stem_norm", "norm"):
        for leaf in ("scale", "bias"):
            same_bits(params[norm][leaf], old[norm][leaf][kept])


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_all_writers_of_a_stream_count_alike(factor):
    """Neither writer likes channel 1 best; together they do, whatever the scale of the one."""
    teacher = ResNet(num_classes=5, blocks=(1,), widths=(3, 3))
    variables = filled(teacher)
    for layer, norms in (("stem", [4, 3, 0]), ("stage1_block0_conv2", [0, 3, 4])):
        scale = factor if layer == "stem" else 1.0
        kernel = variables["params"][layer]["kernel"]
        kernel *= np.float32(norms) * np.float32(scale) / np.abs(kernel).sum(axis=(0, 1, 2))
    inherited = cut(teacher, variables, teacher.clone(widths=(1, 1)))
    same_bits(
        inherited["params"]["stem"]["kernel"], variables["params"]["stem"]["kernel"][..., [1]]
    )


def test_blocks_left_out_have_no_say_in_the_channels():
    teacher = ResNet(num_classes=5, blocks=(2,), widths=(2, 2))
    variables = filled(teacher)
    for layer in ("stem", "stage1_block0_conv2", "stage1_block1_conv2"):
        kernel = variables["params"][layer]["kernel"]
        norms = [1, 99] if layer == "stage1_block1_conv2" else [3, 2]
        kernel *= np.float32(norms) / np.abs(kernel).sum(axis=(0, 1, 2))
    stem = variables["params"]["stem"]["kernel"]
    for blocks, channel in (((2,), 1), ((1,), 0)):
        inherited = cut(teacher, variables, teacher.clone(blocks=blocks, widths=(1, 1)))
        same_bits(inherited["params"]["stem"]["kernel"], stem[..., [channel]])


def test_a_shortcut_that_only_the_student_needs_stays_fresh():
    teacher = TEACHERS["resnet_as_wide_as_its_stem"]
    student = teacher.clone(widths=(3, 6, 8))
    inherited, fresh = cut(teacher, filled(teacher), student), filled(student, seed=99)
    new = {"stage1_block0_shortcut", "stage1_block0_shortcut_bn"}
    assert set(inherited["params"]) - set(filled(teacher)["params"]) == new
    for layer in inherited["params"]:
        kept = jax.tree.map(np.array_equal, inherited["params"][layer], fresh["params"][layer])
        assert all(jax.tree.leaves(kept)) == (layer in new)
    assert np.isfinite(logits(student, inherited, images(2))).all()


def test_a_shortcut_that_only_the_teacher_needs_is_dropped():
    teacher = TEACHERS["resnet_wider_than_its_stem"]
    student = teacher.clone(widths=(4, 4, 6))
    inherited = cut(teacher, filled(teacher), student)
    assert jax.tree.structure(inherited) == jax.tree.structure(shapes(student))
    same_bits(inherited["params"]["stem"], filled(teacher)["params"]["stem"])
    assert np.isfinite(logits(student, inherited, images(2))).all()


# --- inherit: depth ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "want", "chosen"),
    [
        (3, 1, [0]),
        (5, 2, [0, 2]),
        (5, 3, [0, 1, 3]),
        (9, 3, [0, 3, 6]),
        pytest.param(24, 12, [*range(0, 24, 2)], marks=pytest.mark.slow),
    ],
)
def test_the_first_block_and_evenly_spaced_ones_are_chosen(have, want, chosen):
    teacher = ResNet(num_classes=5, blocks=(1, have), widths=(2, 2, 3))
    variables = filled(teacher)
    inherited = cut(teacher, variables, teacher.clone(blocks=(1, want)))
    for new, old in enumerate(chosen):
        for layer in ("conv1", "bn1", "conv2", "bn2"):
            for collection, layers in variables.items():
                if f"stage2_block{old}_{layer}" in layers:
                    same_bits(
                        inherited[collection][f"stage2_block{new}_{layer}"],
                        layers[f"stage2_block{old}_{layer}"],
                    )


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_dropping_blocks_that_add_nothing_changes_no_logit(width):
    teacher = ResNet(num_classes=5, blocks=(4, 3), widths=(6, 6, 8))
    student = derive(teacher, width=width, depth=0.5)
    assert student.blocks == (2, 2)
    narrow = teacher.clone(widths=student.widths)
    variables = with_dead_channels(teacher, narrow, filled(teacher))
    for block in ("stage1_block1", "stage1_block3", "stage2_block2"):
        variables["params"][f"{block}_bn2"] = jax.tree.map(
            np.zeros_like, variables["params"][f"{block}_bn2"]
        )
    found = logits(student, cut(teacher, variables, student), images(4))
    expected = logits(teacher, variables, images(4))
    assert np.std(expected, axis=0).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# --- inherit: what cannot work -----------------------------------------------------------------

RESNET = ResNet(num_classes=5, blocks=(2, 2), widths=(4, 6, 8))
SMALL = SmallCNN(num_classes=5, widths=(4, 6), hidden=8)


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        (RESNET, SMALL, "a SmallCNN cannot be cut out of a ResNet"),
        (RESNET, RESNET.clone(blocks=(2, 3)), "3 blocks in stage2, but its teacher has 2"),
        (RESNET, RESNET.clone(blocks=(2,), widths=(4, 6)), "1 stages, but its teacher has 2"),
        (RESNET, RESNET.clone(widths=(5, 6, 8)), "5 channels in stem, but its teacher has 4"),
        (
            RESNET,
            RESNET.clone(widths=(4, 6, 9)),
            "9 channels in stage2_block0",
        ),
        (RESNET, RESNET.clone(num_classes=4), r"classifier needs a \w+ of shape \(.*4[,)]"),
        (SMALL, SMALL.clone(widths=(4, 7)), "7 channels in (bn|conv)2, but its teacher has 6"),
        (SMALL, SMALL.clone(hidden=9), "9 channels in dense, but its teacher has 8"),
        (SMALL, SMALL.clone(widths=(4,)), "dense needs a kernel of shape"),
        (SMALL, SMALL.clone(widths=(4, 6, 6)), "dense needs a kernel of shape"),
    ],
)
def test_a_student_that_does_not_fit_is_refused_with_a_remedy(teacher, student, message):
    with pytest.raises(ValueError, match=f"^student: .*{message}.*inherit=False"):
        cut(teacher, filled(teacher), student)


# --- recalibrate -------------------------------------------------------------------------------


def first_convolution(kernel, x):
    """`conv1` of SmallCNN in NumPy: `[n, H, W, C]`, float64."""
    pixels = (x / 255.0 - 0.5) / 0.5
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel.astype(np.float64))


@pytest.mark.parametrize("sizes", [(8,), (8, 8, 8), (8, 3, 5)])
def test_the_first_layer_gets_the_exact_statistics_of_all_images(sizes):
    model = SMALL
    variables = filled(model)
    # Batches that differ a lot: what lies between them must not be lost.
    batches = [images(n, seed=i) // np.uint8(i + 1) for i, n in enumerate(sizes)]
    y = first_convolution(variables["params"]["conv1"]["kernel"], np.concatenate(batches))
    found = recalibrate(model, variables, iter(batches))["batch_stats"]["bn1"]
    np.testing.assert_allclose(found["mean"], y.mean(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["var"], y.var(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)


@every_teacher
def test_after_one_batch_evaluation_equals_training_on_it(teacher):
    """Whatever the model says about several devices: there is no axis to reduce over here."""
    variables, x = filled(teacher), images(16)
    found = recalibrate(teacher, variables, [x])
    local = teacher.clone(sync_batch_norm=False)
    training = jax.jit(functools.partial(local.apply, train=True, mutable=["batch_stats"]))
    expected, _ = training(variables, x)
    np.testing.assert_allclose(logits(teacher, found, x), expected.logits, rtol=1e-4, atol=1e-4)
    assert not np.allclose(logits(teacher, variables, x), expected.logits, atol=1e-2)


class Momenta(VisionModel):
    """Whose layers forget at different rates, as MobileNetV3's do, and NNX's by default."""

    momenta: tuple[float, ...] = (0.99, 0.9997, 0.5)

    @nn.compact
    def __call__(self, images, train=False):
        x = self.pixels(images)
        for i, momentum in enumerate(self.momenta):
            x = self.conv(4, 3, name=f"conv{i}")(x)
            x = nn.BatchNorm(not train, momentum=momentum, name=f"bn{i}")(x)
        x = x.mean(axis=(1, 2))
        return Outputs(nn.Dense(10, name="classifier")(x), {}, x)


def test_momentum_is_measured_and_not_assumed():
    model, x = Momenta(), images(16)
    variables = filled(model)
    found = recalibrate(model, variables, [x])
    expected, _ = model.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(logits(model, found, x), expected.logits, rtol=1e-3, atol=1e-3)


def test_only_the_statistics_change_and_they_keep_their_structure():
    variables = filled(RESNET)
    found = recalibrate(RESNET, variables, [images(4)])
    same_bits(found["params"], variables["params"])
    same_bits(variables, filled(RESNET))
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found)
    assert described == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes(RESNET))
    moved = jax.tree.map(lambda a, b: (a != b).all(), found, variables)["batch_stats"]
    assert all(jax.tree.leaves(moved))


def test_the_old_statistics_are_forgotten():
    variables = filled(SMALL)
    strange = {
        **variables,
        "batch_stats": jax.tree.map(lambda a: a + 100, variables["batch_stats"]),
    }
    same_bits(recalibrate(SMALL, strange, [images(4)]), recalibrate(SMALL, variables, [images(4)]))


def test_without_batch_norm_nothing_changes_and_nothing_is_read():
    variables = {"params": filled(SMALL)["params"]}
    batches = iter([images(4)])
    same_bits(recalibrate(SMALL, variables, batches), variables)
    assert next(batches).shape == (4, *SHAPE)


def test_without_a_batch_nothing_changes():
    same_bits(recalibrate(SMALL, filled(SMALL), []), filled(SMALL))


def test_a_cut_and_recalibrated_student_is_closer_to_its_teacher():
    """Cutting what a layer reads shifts what it writes; new statistics take the shift out."""
    teacher = ResNet(num_classes=5, blocks=(2, 2), widths=(16, 16, 24))
    student = derive(teacher, width=0.75, depth=1.0)
    x = images(64)
    variables = recalibrate(teacher, filled(teacher), [x])
    inherited = cut(teacher, variables, student)
    expected = logits(teacher, variables, x)

    def error(candidate):
        return float(jnp.mean(jnp.square(logits(student, candidate, x) - expected)))

    assert error(recalibrate(student, inherited, [x])) < 0.9 * error(inherited)
