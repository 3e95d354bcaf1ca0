"""What each sub-command does, from its flags to its exit."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from kdjax import distill as job
from kdjax import tables
from kdjax.deploy.export import export as export_network
from kdjax.deploy.weights import anonymous, export_torch, import_weights
from kdjax.derivation import derive_run
from kdjax.ensembles import join, split
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import check_fits, evaluate_run, open_data, verification_images
from kdjax.experiment import UNKNOWN, Data, Derive, Experiment, Importance
from kdjax.flags import named_model, parse, parse_with_preset
from kdjax.models.ensemble import Weighting
from kdjax.models.summary import parameter_count
from kdjax.report.page import build, read_job
from kdjax.students.torch_weights import Mismatch
from kdjax.training.parallel import set_up_compilation_cache
from kdjax.training.run_directory import write_json

Flattened = Annotated[Experiment, arg(name="")]


@dataclass(frozen=True)
class WorkFlags:
    """Flags of a job."""

    experiment: Flattened
    workdir: Path | None = None
    """Work directory, by default `runs/NAME`; an unfinished job in it goes on."""

    @property
    def directory(self) -> Path:
        """Where the job lives."""
        return self.workdir or Path("runs") / self.experiment.name


@dataclass(frozen=True)
class ShowFlags:
    """Flags of show."""

    experiment: Flattened


@dataclass(frozen=True)
class EvaluateFlags:
    """Metrics of a checkpoint: `kdjax evaluate runs/digits/student --checkpoint latest`."""

    run: Positional[Path]
    """A run directory."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""
    split: Literal["train", "validation", "test"] = "test"
    """Split of the run's data set."""
    weights: Literal["raw", "ema"] | None = None
    """Raw weights or their moving average; by default the average where one was kept."""
    batch_size: int = 512
    """Examples at a time."""
    output: Path | None = None
    """Write the metrics to this JSON file too."""
    data: str | None = None
    """`tfds:NAME`: evaluate on this data set instead of the run's own."""
    directory: str | None = None
    """Where TFDS keeps that data set."""


@dataclass(frozen=True)
class ExportFlags:
    """A checkpoint as stand-alone files: `kdjax export runs/digits/student --output exported`."""

    run: Positional[Path]
    """A run directory."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""
    formats: tuple[Literal["stablehlo"], ...] = ("stablehlo",)
    """What to write."""
    output: Path | None = None
    """Directory to write; by default `export` in the run directory."""


@dataclass(frozen=True)
class DeriveFlags:
    """A student cut from a run: `kdjax derive runs/digits/teacher --params 0.25 --out runs/s`."""

    run: Positional[Path]
    """A run directory."""
    width: float | None = None
    """Share of the channels that is kept, in (0, 1]."""
    depth: float = 1.0
    """Share of each stage's blocks that is kept, in (0, 1]."""
    params: float | None = None
    """As wide as this share of the parameters allows."""
    flops: float | None = None
    """As wide as this share of the operations allows."""
    latency_ms: float | None = None
    """As wide as this many milliseconds for one image allow, on this machine."""
    importance: Importance = "l1"
    """What makes a channel important: its kernels' l1 norm, bn_scale, or taylor (needs data)."""
    recalibrate: int = 16
    """Training batches that batch norm statistics are measured on."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""
    out: Path | None = None
    """Run directory to write the student to."""
    data: str | None = None
    """`tfds:NAME`: use this data set instead of the run's own; its last tenth is validated on."""
    directory: str | None = None
    """Where TFDS keeps that data set."""

    def how(self) -> Derive:
        """Exactly one of the ways to say how wide."""
        ways = {"width": self.width, "params": self.params, "flops": self.flops}
        given = [n for n, v in {**ways, "latency_ms": self.latency_ms}.items() if v is not None]
        if len(given) > 1 or (not given and self.depth == 1.0):
            said = " and ".join(f"--{name}" for name in given) or "nothing"
            raise ValueError(
                f"{said} given; say how small by one of --width, --params, --flops, --latency_ms, "
                "or by --depth."
            )
        return Derive(
            width=1.0 if self.width is None else self.width,
            depth=self.depth,
            params=self.params,
            flops=self.flops,
            importance=self.importance,
            recalibrate=self.recalibrate,
        )


@dataclass(frozen=True)
class JoinFlags:
    """Runs that answer as one: `kdjax ensemble join runs/a runs/b --out runs/both`."""

    runs: Positional[tuple[Path, ...]]
    """Finished run directories, for the same images and classes."""
    out: Path
    """Run directory to write."""
    weights: tuple[float, ...] = ()
    """How much each run counts, positive; only their ratios matter. By default all alike."""
    weighting: Weighting = "fixed"
    """Whether a run counts more for an example that it is surer of, by entropy or confidence."""
    checkpoint: str = "best"
    """Of each run: `best`, `latest` or a step."""


@dataclass(frozen=True)
class SplitFlags:
    """A member of an ensemble: `kdjax ensemble split runs/both --member 0 --out runs/a`."""

    run: Positional[Path]
    """The run directory of an ensemble."""
    member: int
    """Which, from 0."""
    out: Path
    """Run directory to write."""
    checkpoint: str = "best"
    """`best`, `latest` or a step."""


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


@dataclass(frozen=True)
class ReportFlags:
    """A page about jobs: `kdjax report runs/digits runs/other --output report.html`."""

    runs: Positional[tuple[Path, ...]]
    """Work directories or run directories."""
    output: Path
    """The HTML file."""


def distill(arguments: list[str]) -> None:
    """The whole job."""
    flags = parse_with_preset(WorkFlags, arguments, "kdjax distill")
    command = shlex.join(["kdjax", "distill", *arguments])
    summary = job.distill(flags.experiment, flags.directory, command)
    if summary:
        console = Console()
        console.print(tables.comparison(summary))
        console.print(f"report: {flags.directory / 'report.html'}", soft_wrap=True, highlight=False)


def train(arguments: list[str]) -> None:
    """The teacher alone."""
    flags = parse_with_preset(WorkFlags, arguments, "kdjax train")
    summary = job.train(flags.experiment, flags.directory)
    if summary:
        Console().print(tables.comparison(summary))


def show(arguments: list[str]) -> None:
    """What a preset means."""
    flags = parse_with_preset(ShowFlags, arguments, "kdjax show")
    console = Console()
    for part in tables.explain(flags.experiment):
        console.print(part)


def evaluate(arguments: list[str]) -> None:
    """Metrics of a checkpoint."""
    flags = parse(EvaluateFlags, arguments, "kdjax evaluate")
    set_up_compilation_cache()
    metrics = evaluate_run(
        flags.run,
        checkpoint=flags.checkpoint,
        split=flags.split,
        weights=flags.weights,
        batch_size=flags.batch_size,
        data=Data(name=flags.data, directory=flags.directory) if flags.data else None,
    )
    Console().print(tables.metrics(metrics))
    if flags.output:
        write_json(flags.output, metrics)


def export(arguments: list[str]) -> None:
    """A checkpoint as stand-alone files."""
    flags = parse(ExportFlags, arguments, "kdjax export")
    set_up_compilation_cache()
    network = load(flags.run, flags.checkpoint)
    directory = flags.output or flags.run / "export"
    if directory.exists() and not (directory / "card.json").is_file():
        raise ValueError(f"--output: {directory} exists and is not an export; choose another.")
    known = network.info.name != UNKNOWN
    metrics = evaluate_run(flags.run, checkpoint=flags.checkpoint) if known else {}
    card = export_network(network, directory, verification_images(network), metrics)
    summary = {key: card[key] for key in ("model", "step", "bytes", "max_difference")}
    Console().print(f"{directory}: {json.dumps(summary)}", soft_wrap=True, highlight=False)


def derive(arguments: list[str]) -> None:
    """A student before its training."""
    flags = parse(DeriveFlags, arguments, "kdjax derive")
    set_up_compilation_cache()
    data = None
    if flags.data:
        train, validation = "train[:90%]", "train[90%:]"
        data = Data(name=flags.data, directory=flags.directory, train=train, validation=validation)
    networks = derive_run(
        flags.run,
        flags.how(),
        checkpoint=flags.checkpoint,
        latency=flags.latency_ms,
        data=data,
        out=flags.out,
    )
    Console().print(tables.derived(networks))
    if flags.out:
        Console().print(f"{flags.out}: the student", soft_wrap=True, highlight=False)


def ensemble(arguments: list[str]) -> None:
    """Runs together and apart."""
    what, *rest = arguments
    {"join": _join, "split": _split}[what](rest)


def _join(arguments: list[str]) -> None:
    flags = parse(JoinFlags, arguments, "kdjax ensemble join")
    model = join(
        flags.runs,
        flags.out,
        weights=flags.weights,
        weighting=flags.weighting,
        checkpoint=flags.checkpoint,
    )
    names = ", ".join(type(member).__name__ for member in model.members)
    Console().print(f"{flags.out}: Ensemble of {names}", soft_wrap=True, highlight=False)


def _split(arguments: list[str]) -> None:
    flags = parse(SplitFlags, arguments, "kdjax ensemble split")
    model = split(flags.run, flags.member, flags.out, checkpoint=flags.checkpoint)
    Console().print(f"{flags.out}: {type(model).__name__}", soft_wrap=True, highlight=False)


def weights(arguments: list[str]) -> None:
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
        Console(stderr=True).print(tables.mismatch(mismatch.rows))
        raise
    parameters = parameter_count(model, info.shape)
    text = f"{flags.out}: {type(model).__name__}, {parameters:,} parameters"
    Console().print(text, soft_wrap=True, highlight=False)


def _export_weights(arguments: list[str]) -> None:
    flags = parse(TorchFlags, arguments, "kdjax weights export")
    out = flags.out or flags.run / "torch.safetensors"
    count = export_torch(load(flags.run, flags.checkpoint), out)
    Console().print(f"{out}: {count} arrays", soft_wrap=True, highlight=False)


def report(arguments: list[str]) -> None:
    """One page about jobs."""
    flags = parse(ReportFlags, arguments, "kdjax report")
    page = build([read_job(path) for path in flags.runs])
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_text(page)
    Console().print(f"{flags.output}: {len(page):,} bytes", soft_wrap=True, highlight=False)
