"""RepDistiller's VGG for CIFAR, and torchvision's."""

from functools import partial
from typing import Any

from tests.checkouts import end_in_relu, from_checkout
from tests.torch_parity.reference import Reference

STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")


def _repdistiller(name: str, classes: int) -> Any:
    network = getattr(from_checkout("HobbitLong/RepDistiller", "models"), name)(num_classes=classes)
    for i in range(len(STAGES)):
        end_in_relu(getattr(network, f"block{i}"))
    return network


def _torchvision(name: str, classes: int) -> Any:
    import torchvision

    return getattr(torchvision.models, name)(num_classes=classes)


BLOCKS = {stage: f"block{i}" for i, stage in enumerate(STAGES)}
RELUS = {
    "stem": "features.5",
    "stage1": "features.12",
    "stage2": "features.22",
    "stage3": "features.32",
    "stage4": "features.42",
}
"""The last of each stage of `vgg16_bn`."""

REFERENCES: dict[str, Reference] = {
    **{
        f"vgg{layers}": Reference(partial(_repdistiller, f"vgg{layers}_bn"), BLOCKS)
        for layers in (8, 11, 13, 16, 19)
    },
    "vgg16_bn": Reference(partial(_torchvision, "vgg16_bn"), RELUS, size=64),
}
