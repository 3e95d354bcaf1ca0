"""MobileNets and EfficientNet: timm's, torchvision's, and RepDistiller's CIFAR form."""

from collections.abc import Sequence
from typing import Any

from tests.checkouts import from_checkout
from tests.torch_parity.reference import Reference


def _timm_v1(classes: int) -> Any:
    import timm

    return timm.create_model("mobilenetv1_100", num_classes=classes)


def _repdistiller_half(classes: int) -> Any:
    return from_checkout("HobbitLong/RepDistiller", "models.mobilenetv2").mobile_half(classes)


def _torchvision(name: str, last_blocks: Sequence[int]) -> Reference:
    """`last_blocks` are the numbers of each stage's last block among torchvision's features."""

    def build(classes: int) -> Any:
        import torchvision

        return torchvision.models.get_model(name, num_classes=classes)

    taps = {f"stage{i}": f"features.{n}" for i, n in enumerate(last_blocks, start=1)}
    return Reference(build, {"stem": "features.0", **taps}, size=64)


REFERENCES: dict[str, Reference] = {
    "mobilenet_v1": Reference(
        _timm_v1,
        {"stem": "bn1", **{f"stage{i}": f"blocks.{i - 1}" for i in range(1, 6)}},
        size=64,
    ),
    "mobilenet_v2": _torchvision("mobilenet_v2", (1, 3, 6, 10, 13, 16, 17)),
    "mobilenet_v2_half": Reference(
        _repdistiller_half,
        {"stem": "conv1", **{f"stage{i}": f"blocks.{i - 1}" for i in range(1, 8)}},
    ),
    "mobilenet_v3_large": _torchvision("mobilenet_v3_large", (1, 3, 6, 10, 12, 15)),
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small", (1, 3, 6, 8, 11)),
    "efficientnet_b0": _torchvision("efficientnet_b0", range(1, 8)),
}
