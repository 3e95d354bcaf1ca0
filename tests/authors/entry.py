"""A loss of ours that stands beside authors' code, and which parameter is which of theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdjax.losses import DistillationLoss


@dataclass(frozen=True)
class Ours:
    """A loss of ours that stands beside theirs."""

    loss: DistillationLoss
    theirs: str
    """The file of `theirs`."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The path of a layer of ours, or of a parameter, to the name of theirs."""
    transposed: tuple[str, ...] = ()
    """Our convolutions that are transposed ones there, which is the same the other way round."""
    flat: tuple[str, ...] = ()
    """Their parameters whose slope is zero but for rounding, before batch norm."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Variables that are no parameters of the loss."""
    one_class: bool = False
    """All examples are of one class, so no loss takes one for a negative of another."""
    differs: str = ""
    """How the value differs on purpose; slopes are compared."""
    so_that: str = ""
    """What is done so that they can be compared."""
