"""PyTorch files in and out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from kdjax.commands.flags import named_model, parse
from kdjax.deploy.weights import anonymous, export_torch, import_weights
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import check_fits, open_data
from kdjax.experiment import UNKNOWN, Data
from kdjax.models.summary import parameter_count
from kdjax.students.torch_weights import Mismatch


@dataclass(frozen=True)
class ImportFlags:
    """A PyTorch file as a run: `kdjax weights import F --model vgg8 --num-classes 9 --out R`."""

    file: Positional[Path]
    """`.safetensors`, or `.pth`, `.th`, `.pt`, `.bin` (extra `torch`)."""
    model: str
    """Name of the network, such as resnet18."""
    num_classes: int
    """Classes the file's classifier tells apart."""
    out: Path
    """Run directory to write."""
    mean: tuple[float, ...] | None = None
    """Channel means the network was trained with; by default those of the named network."""
    std: tuple[float, ...] | None = None
    """Channel standard deviations the network was trained with."""
    image_size: int | None = None
    """Height and width it is used on; by default 224, or 32 for networks of the CIFAR papers."""
    channels: int = 3
    """Channels of its images."""
    data: str | None = None
    """`tfds:NAME`: the data set, for its class names and for `kdjax evaluate`."""
    directory: str | None = None
    """Where TFDS keeps its data sets."""


@dataclass(frozen=True)
class TorchFlags:
    """A run as a PyTorch file: `kdjax weights export runs/imported --out weights.safetensors`."""

    run: Positional[Path]
    """A run directory."""
    out: Path | None = None
    """The file to write; by default `torch.safetensors` in the run directory."""
    format: Literal["torch-safetensors"] = "torch-safetensors"
    """Names and layouts of torchvision, timm or RepDistiller, as safetensors."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""


def run(arguments: list[str]) -> None:
    """PyTorch files in and out."""
    what, *rest = arguments
    {"import": _import_weights, "export": _export_weights}[what](rest)


def _import_weights(arguments: list[str]) -> None:
    flags = parse(ImportFlags, arguments, "kdjax weights import")
    model = named_model("--model", flags.model)
    size = flags.image_size or (224 if model.num_classes == 1000 else 32)
    shape = (size, size, flags.channels)
    model = model.clone(
        num_classes=flags.num_classes,
        mean=flags.mean or model.mean,
        std=flags.std or model.std,
    )
    data = Data(name=flags.data or UNKNOWN, directory=flags.directory)
    info = open_data(data, ("test",)).info if flags.data else anonymous(model, shape)
    check_fits("--model", model, info)
    try:
        import_weights(model, flags.file, flags.out, data, info)
    except Mismatch as mismatch:
        Console(stderr=True).print(_misfits(mismatch.rows))
        raise
    parameters = parameter_count(model, info.shape)
    text = f"{flags.out}: {type(model).__name__}, {parameters:,} parameters"
    Console().print(text, soft_wrap=True, highlight=False)


def _export_weights(arguments: list[str]) -> None:
    flags = parse(TorchFlags, arguments, "kdjax weights export")
    out = flags.out or flags.run / "torch.safetensors"
    count = export_torch(load(flags.run, flags.checkpoint), out)
    Console().print(f"{out}: {count} arrays", soft_wrap=True, highlight=False)


def _misfits(rows: Sequence[tuple[str, str, str]], most: int = 20) -> Table:
    """Why a file does not fit a network, a row a problem."""
    table = Table(box=None, padding=(0, 2), show_header=False)
    for row in rows[:most]:
        table.add_row(*row)
    if len(rows) > most:
        table.add_row("…", f"{len(rows) - most} more")
    return table
