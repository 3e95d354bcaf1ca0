"""PyTorch networks that are in no package: modules of a checked-out repository."""

import importlib
import os
import sys
from typing import Any

REPOSITORIES = {
    "KDJAX_REPDISTILLER": "https://github.com/HobbitLong/RepDistiller",
    "KDJAX_AKAMASTER": "https://github.com/akamaster/pytorch_resnet_cifar10",
}
"""The environment variable that names the folder, and what is to be checked out there."""


def from_checkout(variable: str, module: str) -> Any:
    """A module of the repository that lies where the environment variable says."""
    folder = os.environ.get(variable)
    if folder is None:
        raise RuntimeError(f"{variable} is not set: check out {REPOSITORIES[variable]} and name it")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(module)


def end_in_relu(module: Any) -> None:
    """Let a module put out what its caller, with a functional ReLU, makes of it anyway."""
    module.register_forward_hook(lambda module, inputs, output: output.relu())
