"""The losses. A loss is a Linen module; `Term` puts it to use; the union is the registry."""

from kdjax.losses.attention_transfer import AttentionTransfer
from kdjax.losses.base import DistillationLoss
from kdjax.losses.cross_entropy import CrossEntropy
from kdjax.losses.dkd import DKD
from kdjax.losses.fitnet import FitNet
from kdjax.losses.hard_target import HardTarget
from kdjax.losses.logit_mse import LogitMSE
from kdjax.losses.logit_standardization import LogitStandardization
from kdjax.losses.soft_target import SoftTarget
from kdjax.losses.terms import Loss, Ramp, Term, term_names
from kdjax.losses.wsld import WSLD

__all__ = [
    "DKD",
    "WSLD",
    "AttentionTransfer",
    "CrossEntropy",
    "DistillationLoss",
    "FitNet",
    "HardTarget",
    "LogitMSE",
    "LogitStandardization",
    "Loss",
    "Ramp",
    "SoftTarget",
    "Term",
    "term_names",
]
