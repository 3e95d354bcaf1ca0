"""torchvision's RegNets."""

from typing import Any

from tests.torch_parity.reference import Reference


def _build(classes: int) -> Any:
    from torchvision.models import regnet_y_400mf

    return regnet_y_400mf(num_classes=classes)


REFERENCES: dict[str, Reference] = {
    "regnet_y_400mf": Reference(
        _build,
        {"stem": "stem", **{f"stage{i}": f"trunk_output.block{i}" for i in (1, 2, 3, 4)}},
        size=64,
    ),
}
