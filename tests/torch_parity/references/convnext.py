"""torchvision's ConvNeXts."""

from typing import Any

from tests.torch_parity.reference import Reference


def _build(classes: int) -> Any:
    from torchvision.models import convnext_tiny

    return convnext_tiny(num_classes=classes)


REFERENCES: dict[str, Reference] = {
    "convnext_tiny": Reference(
        _build,
        {"stem": "features.0", **{f"stage{i}": f"features.{2 * i - 1}" for i in (1, 2, 3, 4)}},
        size=64,
    ),
}
