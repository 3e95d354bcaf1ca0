"""ViTKD, on maps of one network for all of its layers; the order of patches is given."""

import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests.authors.inputs import normal
from tests.authors.side import Own, Side, Theirs
from tests.checkouts import checkout, from_checkout

REPOSITORY = "yzd-v/cls_KD"


class Registry:
    """Of mmcls, which the module asks to register it."""

    def register_module(self) -> object:
        return lambda kind: kind


def _package(name: str, path: str = "") -> ModuleType:
    module = ModuleType(name)
    module.__path__ = [str(checkout(REPOSITORY) / path)] if path else []
    sys.modules[name] = module
    return module


# The packages around the module import all of mmcls.
for name in ("mmcls", "mmcls.models", "mmcls.models.dis_losses"):
    _package(name, name.replace(".", "/"))
_package("mmcls.registry").MODELS = Registry()
vitkd = from_checkout(REPOSITORY, "mmcls.models.dis_losses.vitkd")


def _patches(f: Tensor) -> Tensor:
    return f.flatten(2).transpose(1, 2)


def _shallow_and_deep(f: Tensor) -> list[Tensor]:
    return [torch.stack([f, f], dim=1), f]


def _given(*shape: int, **kwargs: Any) -> Tensor:
    return torch.from_numpy(normal("noise", shape))


def mimicked_and_generated(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = _patches(s["stage2"]), _patches(t["stage2"])
    loss = vitkd.ViTKDLoss("loss_vitkd", True, f_s.shape[-1], f_t.shape[-1])
    loss.mask_token = nn.Parameter(loss.mask_token[0, 0])  # of as many axes as ours
    torch.rand = _given
    return own(loss)(_shallow_and_deep(f_s), _shallow_and_deep(f_t))


LOSSES = {"vitkd": Theirs(mimicked_and_generated)}
