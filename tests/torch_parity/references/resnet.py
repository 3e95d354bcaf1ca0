"""torchvision's residual networks."""

from tests.torch_parity.reference import Reference

REFERENCES: dict[str, Reference] = {}
