"""Masked generation, as for classification, with nothing masked: masks differ by library."""

import sys
from types import ModuleType

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import checkout, from_checkout

REPOSITORY = "yzd-v/MGD"


class Registry:
    """Of mmcls, which the module asks to register it."""

    def register_module(self) -> object:
        return lambda kind: kind


def _package(name: str, path: str = "") -> ModuleType:
    module = ModuleType(name)
    module.__path__ = [str(checkout(REPOSITORY) / "cls" / path)] if path else []
    sys.modules[name] = module
    return module


# The packages around the module import all of mmcls.
for name in ("mmcls", "mmcls.distillation", "mmcls.distillation.losses"):
    _package(name, name.replace(".", "/"))
_package("mmcls.distillation.builder").DISTILL_LOSSES = Registry()
mgd = from_checkout(REPOSITORY, "mmcls.distillation.losses.mgd", "cls")


def masked(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = s["stage3"], t["stage3"]
    loss = mgd.MGDLoss(f_s.shape[1], f_t.shape[1], "stage3", alpha_mgd=1.0, lambda_mgd=0.0)
    return own(loss)(f_s, f_t)


LOSSES = {"mgd": Theirs(masked)}
