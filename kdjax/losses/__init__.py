"""The losses. A loss is a Linen module; `Term` puts it to use; the union is the registry."""

from kdjax.losses.attention_transfer import AttentionTransfer
from kdjax.losses.base import DistillationLoss
from kdjax.losses.cross_entropy import CrossEntropy
from kdjax.losses.fitnet import FitNet
from kdjax.losses.soft_target import SoftTarget
from kdjax.losses.terms import Loss, Ramp, Term, term_names

__all__ = [
    "AttentionTransfer",
    "CrossEntropy",
    "DistillationLoss",
    "FitNet",
    "Loss",
    "Ramp",
    "SoftTarget",
    "Term",
    "term_names",
]
