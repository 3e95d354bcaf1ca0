"""A run on disk: what it is, what it logged, what it kept, whether it is finished."""

import dataclasses
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax import __version__
from kdjax.data.sources import DataInfo
from kdjax.drafts import drafted
from kdjax.experiment import Run
from kdjax.experiment.json import differences, from_dict, read_json, to_dict


@dataclass(frozen=True)
class RunDirectory:
    """`config.json`, `metrics.jsonl`, `checkpoints/` and, at the end, `result.json`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """A folder for each."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.json").is_file()

    def read(self) -> tuple[Run, DataInfo]:
        """What the run is; ValueError if there is none or its config is damaged."""
        if not self.exists:
            raise ValueError(f"{self.path} is not a run directory{self._hint()}.")
        config = read_json(self.path / "config.json")
        source = str(self.path / "config.json")
        for key in ("run", "data"):
            if key not in config:
                raise ValueError(f"{source} is damaged: {key} is missing.")
        return from_dict(config["run"], Run, source), from_dict(config["data"], DataInfo, source)

    def check(self, run: Run, info: DataInfo, *, compare_teacher: bool = True) -> None:
        """Raise ValueError with the difference if another run lives here."""
        if not self.exists:
            return
        old_run, old_info = self.read()
        if not compare_teacher:
            old_run, run = (dataclasses.replace(r, teacher=None) for r in (old_run, run))
        lines = differences(_identity(old_run, old_info), _identity(run, info))
        if lines:
            raise ValueError(
                f"{self.path} holds another experiment ({'; '.join(lines)}). "
                "Choose another --workdir, or delete it."
            )

    def create(self, run: Run, info: DataInfo) -> None:
        """Write `config.json`; where there is one already, no more than the metrics of the run."""
        path, values = self.path / "config.json", to_dict(run)
        if not self.exists:
            write_json(path, {"kdjax": __version__, "run": values, "data": to_dict(info)})
            return
        config = read_json(path)
        if config["run"].get("metrics", []) != values["metrics"]:
            config["run"]["metrics"] = values["metrics"]
            write_json(path, config)

    def result(self) -> dict[str, Any] | None:
        """The final numbers of a finished run; None while it is not finished."""
        path = self.path / "result.json"
        return read_json(path) if path.is_file() else None

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished."""
        write_json(self.path / "result.json", result)

    def _hint(self) -> str:
        runs = [p.parent.name for p in sorted(self.path.glob("*/config.json"))]
        return f"; it is a job with the runs {', '.join(runs)}: name one of them" if runs else ""


def _identity(run: Run, info: DataInfo) -> dict[str, Any]:
    """What makes two runs the same: not where their data, teacher and cache lie, nor by what
    they are measured."""
    if run.teacher is not None:
        run = dataclasses.replace(run, teacher=dataclasses.replace(run.teacher, run=""))
    kept = dataclasses.replace(run.cache, directory="" if run.cache.directory else None)
    data = dataclasses.replace(run.data, directory=None)
    run = dataclasses.replace(run, data=data, cache=kept, metrics=())
    return {**to_dict(run), "data set": to_dict(info)}


def write_json(path: Path, value: Any) -> None:
    """All or nothing: a reader never sees half a file."""
    with drafted(path) as draft:
        draft.write_text(json.dumps(value, indent=2, allow_nan=True) + "\n")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a work directory; ValueError if another process does. Freed even by `kill -9`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(f"{directory} is in use by {file.read().strip()}.") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
