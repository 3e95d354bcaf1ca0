"""A student before its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from kdjax.commands.flags import parse
from kdjax.commands.tables import engineering, titled
from kdjax.experiment import Data, Derive
from kdjax.jobs.derive import Comparison, derive_run
from kdjax.students.derive import Importance
from kdjax.training.parallel import set_up_compilation_cache


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


def run(arguments: list[str]) -> None:
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
    Console().print(_table(networks))
    if flags.out:
        Console().print(f"{flags.out}: the student", soft_wrap=True, highlight=False)


def _table(networks: Mapping[str, Comparison]) -> Table:
    """Teacher and student before any training of the student."""
    table = titled("before any training")
    table.add_column("", no_wrap=True)
    for role in networks:
        table.add_column(role, justify="right")
    teacher, student = networks["teacher"], networks["student"]
    table.add_column("share", justify="right")
    for name, write in (("parameters", "{:,}".format), ("flops", engineering)):
        old, new = getattr(teacher, name), getattr(student, name)
        label = "FLOPs/image" if name == "flops" else name
        table.add_row(label, write(old), write(new), f"{new / old:.1%}")
    old, new = teacher.latency_ms, student.latency_ms
    table.add_row("ms, one image, here", f"{old:.2f}", f"{new:.2f}", f"{new / old:.1%}")
    if teacher.top1 is not None and student.top1 is not None:
        table.add_row("top-1, validation", f"{teacher.top1:.2%}", f"{student.top1:.2%}", "")
    for stage, size in teacher.stages.items():
        by = ["x".join(map(str, s)) for s in (size, student.stages[stage])]
        table.add_row(stage, *by, "")
    return table
