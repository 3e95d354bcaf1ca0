"""The residual networks of torchvision, RepDistiller and akamaster/pytorch_resnet_cifar10."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.checkouts import end_in_relu, from_checkout
from tests.torch_parity.reference import Reference

STAGES = {f"stage{i}": f"layer{i}" for i in range(1, 5)}
THREE_STAGES = {f"stage{i}": f"layer{i}" for i in range(1, 4)}


def _torchvision(name: str, classes: int) -> Any:
    import torchvision

    return getattr(torchvision.models, name)(num_classes=classes)


def _repdistiller(name: str, classes: int) -> Any:
    return getattr(from_checkout("HobbitLong/RepDistiller", "models"), name)(num_classes=classes)


def _padded(blocks: int, classes: int) -> Any:
    module = from_checkout("akamaster/pytorch_resnet_cifar10", "resnet")
    return module.ResNet(module.BasicBlock, [blocks] * 3, num_classes=classes)


def _with_stem(build: Callable[[int], Any], classes: int) -> Any:
    network = build(classes)
    end_in_relu(network.bn1)
    return network


CIFAR = (
    *("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    *("resnet8x4", "resnet32x4"),
)
IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")

REFERENCES: dict[str, Reference] = {
    **{
        name: Reference(partial(_repdistiller, name), {"stem": "relu", **THREE_STAGES})
        for name in CIFAR
    },
    **{
        f"resnet{6 * n + 2}_pad": Reference(
            partial(_with_stem, partial(_padded, n)), {"stem": "bn1", **THREE_STAGES}
        )
        for n in (3, 5, 7, 9, 18)
    },
    "resnet50_cifar": Reference(
        partial(_with_stem, partial(_repdistiller, "ResNet50")), {"stem": "bn1", **STAGES}
    ),
    **{
        name: Reference(partial(_torchvision, name), {"stem": "maxpool", **STAGES}, size=64)
        for name in IMAGENET
    },
}
