"""Weights from PyTorch files as run directories like any other, and back."""

import hashlib
from pathlib import Path

from kdjax.data.sources import DataInfo
from kdjax.deploy.torch_files import read_tensors, write_tensors
from kdjax.evaluation.load import Loaded
from kdjax.experiment import UNKNOWN, Data, Fit, Imported, Run
from kdjax.models import Model
from kdjax.models.check import check_model
from kdjax.models.summary import Shape
from kdjax.students.torch_weights import from_torch, to_torch
from kdjax.training.run_directory import RunDirectory
from kdjax.training.untrained import check_empty, write_untrained


def import_weights(model: Model, path: Path, directory: Path, data: Data, info: DataInfo) -> None:
    """Fill `model` from a PyTorch file and write it as a finished run.

    Raises `Mismatch` if file and network do not fit, ValueError if the directory is taken; in
    either case nothing is written.
    """
    check_model("model", model)
    check_empty(RunDirectory(directory))
    variables = from_torch(model, read_tensors(path), info.shape)
    run = Run(
        role="teacher",
        seed=0,
        data=data,
        model=model,
        losses=(),
        fit=Fit(epochs=0),
        imported=Imported(file=path.name, sha256=_sha256(path)),
    )
    write_untrained(RunDirectory(directory), run, info, variables)


def export_torch(network: Loaded, path: Path) -> int:
    """Write PyTorch's names and layouts as safetensors; the number of arrays."""
    tensors = to_torch(network.model, network.variables, network.info.shape)
    write_tensors(path, tensors)
    return len(tensors)


def anonymous(model: Model, shape: Shape) -> DataInfo:
    """What is known of the data of a network that came alone: numbers for class names."""
    classes = tuple(map(str, range(model.num_classes)))
    return DataInfo(name=UNKNOWN, shape=shape, classes=classes, sizes={}, fingerprint="")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
