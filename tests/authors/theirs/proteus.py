"""Proteus for DINOv2, between networks that say what they are given; nothing is masked."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "BeSpontaneous/Proteus-pytorch"

# Its networks ask for more packages.
sys.modules["models_dinov2"] = ModuleType("models_dinov2")
proteus = from_checkout(REPOSITORY, "models_proteus_dinov2", "pretrain")

SETTINGS = SimpleNamespace(
    target_model="student",
    teacher_model="vit_large",
    patch_size=14,
    batch_size=8,
    mask_probability=0.0,
    lambda_token=1.0,
    lambda_fea=1.0,
    lambda_patch=0.0,  # of a second pass
)


class Backbone(nn.Module):
    """Answers the same to every crop, once for each of a list."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        patches = side["stage3"].flatten(2).transpose(1, 2)
        self.said = {"x_norm_clstoken": side["embedding"], "x_norm_patchtokens": patches}
        self.embed_dim = patches.shape[-1]

    def forward(self, crops: Any, **kwargs: Any) -> Any:
        return (self.said, self.said) if isinstance(crops, list) else self.said


class WithHead(nn.Module):
    """What `torch.hub` has of the teacher."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def unmasked(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    proteus.models_dinov2.student = lambda **kwargs: Backbone(s)
    torch.hub.load = lambda *args, **kwargs: WithHead(Backbone(t))
    whole = proteus.MetaArch(SETTINGS)
    own(whole.token_head, "token_head.")
    own(whole.fea_head, "fea_head.")
    first = torch.arange(1)
    crops = {"collated_global_crops": torch.zeros(()), "collated_masks": None}
    return whole({**crops, "mask_indices_list": first, "upperbound": 1})["loss"]


LOSSES = {"proteus": Theirs(unmasked)}
