"""PyTorch weight files, read and written. Knows formats, not networks; never unpickles objects."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdjax.drafts import drafted

CONTAINERS = ("state_dict", "model", "net", "model_state_dict", "state_dict_ema", "model_ema")
"""Where training scripts keep the weights among other things, first come first served."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The state dictionary in a `.safetensors` file, or in a `.pth`, `.th`, `.pt` or `.bin` file.

    The latter are pickles: they are read by torch (extra `torch`) with `weights_only=True`, which
    builds tensors and nothing else. ValueError if the file is not what its name says.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    tensors = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not tensors:
        raise ValueError(f"{path} holds no tensors.")
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A `.safetensors` file that PyTorch reads; ValueError if something is there already."""
    if path.exists():
        raise ValueError(f"--out: {path} exists; choose another, or delete it.")
    with drafted(path) as draft:
        save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, draft)


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _pickled(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path}: PyTorch is needed to read it; pip install 'kdjax[torch]', or save the "
            "weights as .safetensors."
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is damaged, no PyTorch file, or holds objects besides tensors; "
            "save its state_dict() alone."
        ) from error
    except Exception as error:  # torch raises whatever its readers of old formats raise
        raise ValueError(f"{path} is not a readable PyTorch file: {_line(error)}") from error
    state = _state_dict(found)
    return {name: _array(value) for name, value in state.items()}


def _state_dict(found: Any) -> dict[str, Any]:
    """The tensors by name, wherever they lie in what was saved."""
    if not isinstance(found, Mapping):
        return {}
    for name in CONTAINERS:
        if isinstance(found.get(name), Mapping):
            return _state_dict(found[name])
    return {name: value for name, value in found.items() if hasattr(value, "detach")}


def _array(tensor: Any) -> np.ndarray:
    plain = tensor.detach()
    return (plain.float() if plain.is_floating_point() else plain).numpy()


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
