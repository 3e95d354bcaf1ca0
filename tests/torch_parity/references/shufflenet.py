"""RepDistiller's ShuffleNets for CIFAR, and torchvision's for ImageNet."""

from functools import partial
from typing import Any

from tests.checkouts import end_in_relu, from_checkout
from tests.torch_parity.reference import Reference


def _repdistiller(name: str, classes: int) -> Any:
    network = getattr(from_checkout("HobbitLong/RepDistiller", "models"), name)(num_classes=classes)
    end_in_relu(network.bn1)
    return network


def _torchvision(classes: int) -> Any:
    from torchvision.models import shufflenet_v2_x1_0

    return shufflenet_v2_x1_0(num_classes=classes)


CIFAR = {"stem": "bn1", **{f"stage{i}": f"layer{i}" for i in (1, 2, 3)}}
IMAGENET = {"stem": "maxpool", **{f"stage{i}": f"stage{i + 1}" for i in (1, 2, 3)}}

REFERENCES: dict[str, Reference] = {
    "shuffle_v1": Reference(partial(_repdistiller, "ShuffleV1"), CIFAR),
    "shuffle_v2": Reference(partial(_repdistiller, "ShuffleV2"), CIFAR),
    "shufflenet_v2_x1_0": Reference(_torchvision, IMAGENET, size=64),
}
