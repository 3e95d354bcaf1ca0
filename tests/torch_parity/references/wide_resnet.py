"""RepDistiller's wide residual networks."""

from functools import partial
from typing import Any

from tests.checkouts import from_checkout
from tests.torch_parity.reference import Reference


def _build(name: str, classes: int) -> Any:
    return getattr(from_checkout("HobbitLong/RepDistiller", "models"), name)(num_classes=classes)


REFERENCES: dict[str, Reference] = {
    name: Reference(
        partial(_build, name),
        {"stem": "conv1", "stage1": "block1", "stage2": "block2", "stage3": "block3"},
    )
    for name in ("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2")
}
