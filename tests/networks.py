"""A tiny instance of every family and of its main variants, small enough to compile in a test.

The shapes are written out by hand: the tests may not ask the network what they should be.
"""

import collections
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from kdjax.models import (
    VGG,
    ConvNeXt,
    EfficientNet,
    Ensemble,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    Model,
    RegNet,
    ResNet,
    ReusedClassifier,
    RowLSTM,
    ShuffleNetV1,
    ShuffleNetV2,
    SmallCNN,
    ViT,
    WideResNet,
)

SHAPE = (10, 8, 3)  # not square, and odd after one halving


class Case(NamedTuple):
    model: Model
    maps: dict[str, tuple[int, int, int]]
    """Of each feature in order: height, width and channels."""
    embedding: int
    batch_norm: bool = True


RESNET = ResNet(num_classes=5, blocks=(2, 1), widths=(4, 4, 6))
MOBILENET_V2 = MobileNetV2(
    num_classes=5,
    std=(0.05,),  # so bright that ReLU6 is not ReLU
    blocks=(1, 2),
    widths=(4, 4, 6),
    strides=(1, 1, 2),
    expansions=(0, 2),
    head=10,
)
SHUFFLENET_V2 = ShuffleNetV2(num_classes=5, blocks=(2, 1), widths=(4, 8, 12), head=10)
VIT = ViT(num_classes=5, patch=2, image_size=SHAPE[:2], blocks=(2, 1), heads=2, head_size=3)

CASES = {
    "small_cnn": Case(
        SmallCNN(num_classes=5, widths=(4, 6), hidden=10),
        {"stage1": (10, 8, 4), "stage2": (5, 4, 6)},
        10,
    ),
    "resnet": Case(RESNET, {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 6)}, 6),
    "resnet_wider_than_its_stem": Case(
        ResNet(num_classes=5, blocks=(1, 1, 1), widths=(4, 8, 8, 8)),
        {"stem": (10, 8, 4), "stage1": (10, 8, 8), "stage2": (5, 4, 8), "stage3": (3, 2, 8)},
        8,
    ),
    "resnet_bottleneck": Case(
        RESNET.clone(block="bottleneck", inner=0.5, widths=(4, 8, 12)),
        {"stem": (10, 8, 4), "stage1": (10, 8, 8), "stage2": (5, 4, 12)},
        12,
    ),
    "resnet_imagenet": Case(
        RESNET.clone(stem="imagenet"),
        {"stem": (3, 2, 4), "stage1": (3, 2, 4), "stage2": (2, 1, 6)},
        6,
    ),
    "resnet_pad": Case(
        RESNET.clone(shortcut="pad", widths=(4, 4, 8)),
        {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 8)},
        8,
    ),
    "wide_resnet": Case(
        WideResNet(num_classes=5, blocks=(2, 1), widths=(4, 4, 6)),
        {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 6)},
        6,
    ),
    "vgg": Case(
        VGG(num_classes=5, convolutions=(1, 2), widths=(4, 6), pools=1),
        {"stem": (10, 8, 4), "stage1": (5, 4, 6)},
        6,
    ),
    "vgg_dense": Case(
        VGG(num_classes=5, convolutions=(1, 2), widths=(4, 6), pools=2, dense=(8, 10)),
        {"stem": (10, 8, 4), "stage1": (5, 4, 6)},
        10,
    ),
    "mobilenet_v1": Case(
        MobileNetV1(num_classes=5, blocks=(1, 2), widths=(4, 6, 8), strides=(2, 1, 2)),
        {"stem": (5, 4, 4), "stage1": (5, 4, 6), "stage2": (3, 2, 8)},
        8,
    ),
    "mobilenet_v2": Case(
        MOBILENET_V2, {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 6)}, 10
    ),
    "mobilenet_v2_relu": Case(
        MOBILENET_V2.clone(strides=(2, 1, 1), expansions=(1, 2), activation="relu"),
        {"stem": (5, 4, 4), "stage1": (5, 4, 4), "stage2": (5, 4, 6)},
        10,
    ),
    "mobilenet_v3": Case(
        MobileNetV3(
            num_classes=5,
            blocks=(1, 2),
            widths=(4, 4, 6),
            strides=(1, 1, 2),
            kernels=(3, 5),
            hard_swish=(False, True),
            inner=(0, 8, 12),
            squeezed=(2, 0, 4),
            head=8,
            hidden=10,
        ),
        {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 6)},
        10,
    ),
    "efficientnet": Case(
        EfficientNet(
            num_classes=5,
            blocks=(1, 2),
            widths=(4, 4, 8),
            strides=(1, 1, 2),
            kernels=(3, 5),
            expansions=(0, 2),
            head=10,
        ),
        {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 8)},
        10,
    ),
    "shufflenet_v1": Case(
        ShuffleNetV1(num_classes=5, blocks=(2, 1), widths=(12, 36, 60), groups=3),
        {"stem": (10, 8, 12), "stage1": (5, 4, 36), "stage2": (3, 2, 60)},
        60,
    ),
    "shufflenet_v2": Case(
        SHUFFLENET_V2, {"stem": (10, 8, 4), "stage1": (5, 4, 8), "stage2": (3, 2, 12)}, 10
    ),
    "shufflenet_v2_imagenet": Case(
        SHUFFLENET_V2.clone(stem="imagenet"),
        {"stem": (3, 2, 4), "stage1": (2, 1, 8), "stage2": (1, 1, 12)},
        10,
    ),
    "regnet": Case(
        RegNet(num_classes=5, blocks=(2, 1), widths=(4, 8, 12), group_width=4),
        {"stem": (5, 4, 4), "stage1": (3, 2, 8), "stage2": (2, 1, 12)},
        12,
    ),
    "convnext": Case(
        ConvNeXt(num_classes=5, blocks=(2, 1), widths=(4, 6), expansion=2, patch=2),
        {"stem": (5, 4, 4), "stage1": (5, 4, 4), "stage2": (2, 2, 6)},
        6,
        batch_norm=False,
    ),
    "vit": Case(
        VIT, {"stem": (5, 4, 6), "stage1": (5, 4, 6), "stage2": (5, 4, 6)}, 6, batch_norm=False
    ),
    "vit_distilled": Case(
        VIT.clone(distillation_token=True),
        {
            "stem": (5, 4, 6),
            "stage1": (5, 4, 6),
            "stage2": (5, 4, 6),
            "class_head": (1, 1, 5),
            "distillation_head": (1, 1, 5),
        },
        6,
        batch_norm=False,
    ),
    "row_lstm": Case(
        RowLSTM(num_classes=5, hidden=6),
        {"stage1": (10, 1, 6), "stage2": (1, 8, 6)},
        12,
        batch_norm=False,
    ),
    "ensemble": Case(
        Ensemble(num_classes=5, members=(RESNET, SmallCNN(num_classes=5, widths=(4,), hidden=10))),
        {
            "stem": (10, 8, 4),
            "stage1": (10, 8, 4),
            "stage2": (5, 4, 6),
            "member0": (1, 1, 5),
            "member1": (1, 1, 5),
        },
        6,
    ),
    "reused_classifier": Case(
        ReusedClassifier(num_classes=5, backbone=RESNET, width=8),
        {"stem": (10, 8, 4), "stage1": (10, 8, 4), "stage2": (5, 4, 6), "projected": (5, 4, 8)},
        8,
    ),
    "reused_classifier_over_an_embedding": Case(
        ReusedClassifier(
            num_classes=5, backbone=SmallCNN(widths=(4, 6), hidden=10), width=9, relu=False
        ),
        {"stage1": (10, 8, 4), "stage2": (5, 4, 6), "projected": (1, 1, 9)},
        9,
    ),
}
"""The first case of a family is the one whose fields are changed one by one."""


VARIANTS = {
    "resnet_wider_than_its_stem",
    "resnet_bottleneck",
    "resnet_imagenet",
    "resnet_pad",
    "vgg_dense",
    "mobilenet_v2_relu",
    "shufflenet_v2_imagenet",
    "vit_distilled",
    "reused_classifier_over_an_embedding",
}
"""Cases whose family has another one."""


def of_classes(model, count):
    """The network for so many classes; all members of an ensemble have as many."""
    if isinstance(model, Ensemble):
        model = model.clone(members=tuple(of_classes(member, count) for member in model.members))
    return model.clone(num_classes=count)


def images(count, seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 256, (count, *shape), np.uint8))


def labels_by_place(axes):
    """Channels that lie on the same axes: any of them may stay in the place of any other."""
    places = collections.defaultdict(set)
    for axis, labels in axes.items():
        for label in labels.tolist():
            places[label].add(axis)
    alike = collections.defaultdict(list)
    for label, found in places.items():
        alike[frozenset(found)].append(label)
    return alike
