"""Modules of published repositories, checked out outside of this one; needs torch to run."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

VARIABLE = "KDJAX_CHECKOUTS"
"""The environment variable that names a folder with the checkouts, each under its last name."""

REPOSITORIES = (
    "ADLab-AutoDrive/ICKD",
    "BeSpontaneous/Proteus-pytorch",
    "DefangChen/SimKD",
    "HobbitLong/RepDistiller",
    "Hao840/OFAKD",
    "JiamingLv/WKD",
    "Jin-Ying/Multi-Level-Logit-Distillation",
    "akamaster/pytorch_resnet_cifar10",
    "bellymonster/Weighted-Soft-Label-Distillation",
    "clovaai/overhaul-distillation",
    "dvlab-research/ReviewKD",
    "facebookresearch/deit",
    "ghwang-s/abkd",
    "hunto/DIST_KD",
    "irfanICMLL/TorchDistiller",
    "jacobswan1/SEED",
    "jingyang2017/KD_SRRL",
    "megvii-research/mdistiller",
    "sunshangquan/logit-standardization-KD",
    "yuanli2333/Teacher-free-Knowledge-Distillation",
    "yzd-v/MGD",
    "yzd-v/cls_KD",
    "zhengli97/CTKD",
    "zju-SWJ/RLD",
    "zkxufo/TTM",
)
"""On GitHub. Their packages have the same names, so a process imports those of one alone."""


def checkout(repository: str) -> Path:
    """Where it lies. RuntimeError where that is not said."""
    folder = os.environ.get(VARIABLE)
    if folder is None:
        raise RuntimeError(f"{VARIABLE} is not set: check out {repository} and name its parent")
    return Path(folder, repository.partition("/")[2])


def commit(repository: str) -> str:
    """The commit that is checked out."""
    command = ["git", "-C", str(checkout(repository)), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def from_checkout(repository: str, module: str, under: str = "") -> Any:
    """A module of the repository, which is imported from this folder of it."""
    folder = str(checkout(repository) / under)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(module)


def end_in_relu(module: Any) -> None:
    """Let a module put out what its caller, with a functional ReLU, makes of it anyway."""
    module.register_forward_hook(lambda module, inputs, output: output.relu())
