"""A job as a reader finds it on disk: plain numbers, nothing of how they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cattrs
import numpy as np

from kdjax.experiment import ASSISTANTS
from kdjax.experiment.json import read_json
from kdjax.report.history import History, read_history

T = TypeVar("T")

ROLES = ("teacher", *ASSISTANTS, "baseline", "student")
"""The networks of a job, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One confidence bin of a reliability diagram."""

    count: float = 0
    confidence: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One checkpoint on one split. Shares are in [0, 1], `nll` and `teacher_kl` in nats."""

    checkpoint: str = ""
    step: float | None = None
    epoch: float | None = None
    weights: str = ""
    split: str = "test"
    count: float | None = None
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    top5: float | None = None
    nll: float | None = None
    ece: float | None = None
    agreement: float | None = None
    teacher_kl: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Those that the experiment chose, by name."""
    calibration: tuple[Bin, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network: its size, its speed, its metrics."""

    directory: str = ""
    type: str = ""
    parameters: float | None = None
    flops: float | None = None
    bytes: float | None = None
    latency_ms: dict[str, float | None] = field(default_factory=dict)
    latest: Evaluation = Evaluation()
    best: Evaluation = Evaluation()


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What was learnt from."""

    name: str = ""
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)

    def label(self, index: int) -> str:
        """Name of a class."""
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)


@dataclass(frozen=True, kw_only=True)
class Export:
    """The exported student; `max_difference` is the largest deviation of a logit."""

    directory: str = ""
    bytes: float | None = None
    max_difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An example teacher and student answer differently; `image` is a PNG in base64."""

    index: int
    label: int
    teacher: int
    student: int
    teacher_probability: float | None = None
    student_probability: float | None = None
    image: str = ""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Counts: `confusion[role][truth, answer]`, `agreement_matrix[teacher, student]`."""

    checkpoint: str = ""
    confusion: dict[str, np.ndarray] = field(default_factory=dict)
    agreement_matrix: np.ndarray | None = None
    disagreements: tuple[Disagreement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others report for this job, in per cent."""

    teacher: float | None = None
    baseline: float | None = None
    student: float | None = None
    rule: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `summary.json` says."""

    name: str = ""
    kdjax: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str = ""
    seconds: dict[str, float | None] = field(default_factory=dict)
    data: DataSet = DataSet()
    models: dict[str, Network] = field(default_factory=dict)
    published: Published | None = None
    export: Export | None = None


@dataclass(frozen=True, kw_only=True)
class JobData:
    """Everything a page shows of one job; parts that do not exist are empty."""

    summary: Summary
    analysis: Analysis = Analysis()
    histories: Mapping[str, History] = field(default_factory=dict)
    """What each role logged."""
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How each role was trained: the `run` of its `config.json`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The whole configuration, as JSON values."""


def read_job(workdir: Path) -> JobData:
    """A job's work directory, finished or not, or a single run directory.

    ValueError if it is neither, or if one of its files is damaged.
    """
    workdir = Path(workdir)
    if (workdir / "config.json").is_file():
        return _read_run(workdir)
    if not any((workdir / name).is_file() for name in ("summary.json", "experiment.json")):
        raise ValueError(
            f"{workdir} is neither a job nor a run: it holds no summary.json, experiment.json or "
            "config.json; name a directory that kdjax wrote."
        )
    return _read_work_directory(workdir)


def _read_work_directory(workdir: Path) -> JobData:
    values = _load(workdir / "summary.json")
    experiment = _load(workdir / "experiment.json")
    directories = {role: workdir / role for role in ROLES}
    for role, model in values.get("models", {}).items():
        directories[role] = workdir / model.get("directory", role)
    configs = _load_each(directories, "config.json")
    if not values:  # stopped before its end, or a teacher alone
        data = [config["data"] for config in configs.values() if "data" in config]
        values = {
            "name": experiment.get("name", workdir.name),
            "data": data[0] if data else {},
            "models": _load_each(directories, "test.json"),
        }
    return JobData(
        summary=_structure(values, Summary, workdir / "summary.json"),
        analysis=_structure(_load(workdir / "analysis.json"), Analysis, workdir / "analysis.json"),
        histories=_histories(directories),
        runs={role: config["run"] for role, config in configs.items() if "run" in config},
        config=experiment,
    )


def _read_run(directory: Path) -> JobData:
    config = _load(directory / "config.json")
    run = config.get("run", {})
    role = run.get("role", "teacher")
    values = {
        "name": directory.resolve().name,
        "kdjax": config.get("kdjax", ""),
        "data": config.get("data", {}),
        "models": _load_each({role: directory}, "test.json"),
    }
    return JobData(
        summary=_structure(values, Summary, directory / "config.json"),
        histories=_histories({role: directory}),
        runs={role: run},
        config=config,
    )


def _histories(directories: Mapping[str, Path]) -> dict[str, History]:
    histories = {role: read_history(path / "metrics.jsonl") for role, path in directories.items()}
    return {role: history for role, history in histories.items() if history.train}


def _load_each(directories: Mapping[str, Path], name: str) -> dict[str, dict[str, Any]]:
    loaded = {role: _load(path / name) for role, path in directories.items()}
    return {role: values for role, values in loaded.items() if values}


def _load(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object.")
    return values


def _structure(values: Mapping[str, Any], cls: type[T], path: Path) -> T:
    """Fields this version does not know are left out: a newer job stays readable."""
    converter = cattrs.Converter()
    converter.register_structure_hook(np.ndarray, lambda rows, _: np.asarray(rows, np.int64))
    try:
        return converter.structure(values, cls)
    except Exception as error:
        problems = cattrs.transform_error(error, path=cls.__name__)
        raise ValueError(f"{path}: {'; '.join(problems)}") from error
