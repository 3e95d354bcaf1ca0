"""The losses. A loss is a Linen module, and the union is the registry."""

from kdjax.losses.ab import AB as AB
from kdjax.losses.abkd import ABKD as ABKD
from kdjax.losses.attention_transfer import AttentionTransfer as AttentionTransfer
from kdjax.losses.base import DistillationLoss as DistillationLoss
from kdjax.losses.binary_cross_entropy import BinaryCrossEntropy as BinaryCrossEntropy
from kdjax.losses.byot import BYOT as BYOT
from kdjax.losses.cc import CC as CC
from kdjax.losses.contrastive_queue import ContrastiveQueue as ContrastiveQueue
from kdjax.losses.crd import CRD as CRD
from kdjax.losses.cross_entropy import CrossEntropy as CrossEntropy
from kdjax.losses.ctkd import CTKD as CTKD
from kdjax.losses.cwd import CWD as CWD
from kdjax.losses.dist import DIST as DIST
from kdjax.losses.distillation_token import DistillationToken as DistillationToken
from kdjax.losses.dkd import DKD as DKD
from kdjax.losses.dml import DML as DML
from kdjax.losses.fitnet import FitNet as FitNet
from kdjax.losses.focal import Focal as Focal
from kdjax.losses.fsp import FSP as FSP
from kdjax.losses.ft import FT as FT
from kdjax.losses.ft import Paraphraser as Paraphraser
from kdjax.losses.hard_target import HardTarget as HardTarget
from kdjax.losses.ickd import ICKD as ICKD
from kdjax.losses.kdsvd import KDSVD as KDSVD
from kdjax.losses.logit_mse import LogitMSE as LogitMSE
from kdjax.losses.logit_standardization import LogitStandardization as LogitStandardization
from kdjax.losses.mgd import MGD as MGD
from kdjax.losses.mlkd import MLKD as MLKD
from kdjax.losses.nst import NST as NST
from kdjax.losses.ofa import OFA as OFA
from kdjax.losses.ofd import OFD as OFD
from kdjax.losses.pkt import PKT as PKT
from kdjax.losses.proteus import Proteus as Proteus
from kdjax.losses.ramp import Ramp as Ramp
from kdjax.losses.review_kd import ReviewKD as ReviewKD
from kdjax.losses.rkd import RKD as RKD
from kdjax.losses.rld import RLD as RLD
from kdjax.losses.sem_ckd import SemCKD as SemCKD
from kdjax.losses.simkd import SimKD as SimKD
from kdjax.losses.soft_target import SoftTarget as SoftTarget
from kdjax.losses.sp import SP as SP
from kdjax.losses.srrl import SRRL as SRRL
from kdjax.losses.tf_kd import TfKD as TfKD
from kdjax.losses.ttm import TTM as TTM
from kdjax.losses.vid import VID as VID
from kdjax.losses.vitkd import ViTKD as ViTKD
from kdjax.losses.wkd import WKD as WKD
from kdjax.losses.wsld import WSLD as WSLD

Loss = (
    CrossEntropy
    | Focal
    | BinaryCrossEntropy
    | SoftTarget
    | HardTarget
    | LogitMSE
    | LogitStandardization
    | DKD
    | WSLD
    | TTM
    | RLD
    | ABKD
    | WKD
    | DML
    | AttentionTransfer
    | FitNet
    | AB
    | OFD
    | MGD
    | ViTKD
    | Proteus
    | ReviewKD
    | SRRL
    | SimKD
    | SemCKD
    | OFA
    | NST
    | CWD
    | ICKD
    | FSP
    | VID
    | KDSVD
    | Paraphraser
    | FT
    | CRD
    | ContrastiveQueue
    | CTKD
    | MLKD
    | TfKD
    | BYOT
    | DistillationToken
    | SP
    | RKD
    | PKT
    | CC
    | DIST
    | DistillationLoss
)
"""Every loss a config file can name; the last stands for those that are not ours."""
