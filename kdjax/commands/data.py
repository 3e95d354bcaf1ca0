"""Data sets: prepared without TensorFlow, and looked at. Needs no JAX."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from kdjax.commands.parsing import parse
from kdjax.data.prepare import prepare
from kdjax.data.sources import open_stored
from kdjax.data.survey import Survey, contact_sheet, survey


@dataclass(frozen=True)
class PrepareFlags:
    """A data set on this machine, once: `kdjax data prepare cifar100 --from downloads`."""

    name: Positional[str]
    """mnist, fashion_mnist, cifar10, cifar100, imagenette (or imagenette/160px-v2 and so on),
    folder:DIR, or, with the extra `tf`, any other data set of TFDS."""
    source: Annotated[Path | None, arg(name="from")] = None
    """Directory with the published files, as archives or extracted; by default they are downloaded,
    unless they are among TFDS's downloads."""
    directory: str | None = None
    """Where TFDS keeps its data sets; by default `TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    title: Annotated[str | None, arg(name="name")] = None
    """What folder:DIR shall be called as a data set."""


@dataclass(frozen=True)
class ShowFlags:
    """What is in a data set: `kdjax data show tfds:cifar100 --output cifar100.png`."""

    name: Positional[str]
    """digits, tfds:NAME, folder:DIR or npz:FILE."""
    directory: str | None = None
    """Where TFDS keeps its data sets, or where DIR and FILE lie."""
    output: Path | None = None
    """Draw images of the first ten classes into this PNG file."""


def run(arguments: list[str]) -> None:
    """Data sets: prepared without TensorFlow, and looked at."""
    what, *rest = arguments
    {"prepare": _prepare, "show": _show}[what](rest)


def _prepare(arguments: list[str]) -> None:
    flags = parse(PrepareFlags, arguments, "kdjax data prepare")
    builder = prepare(flags.name, flags.source, flags.directory, flags.title)
    sizes = ", ".join(f"{name} {s.num_examples:,}" for name, s in builder.info.splits.items())
    _say(f"{builder.data_path}: {sizes}")
    full = builder.info.full_name.rpartition("/")[0]
    _say(f"use it with --data.name tfds:{full}")


def _show(arguments: list[str]) -> None:
    flags = parse(ShowFlags, arguments, "kdjax data show")
    stored = open_stored(_with_kind(flags.name), flags.directory)
    found = [survey(stored, split) for split in sorted(stored.sizes, key=_usual_place)]
    _say(f"{stored.name}: {_classes(stored.classes)}")
    Console().print(_splits(found))
    for part in found:
        if part.broken:
            _say(f"{part.split}: {len(part.broken)} broken, such as: {part.broken[0]}")
    first = found[0]
    _say(f"mean={_numbers(first.mean)}, std={_numbers(first.std)}")
    _say(f"in [0, 1], of {first.measured:,} of the {first.size:,} images of {first.split}")
    if flags.output:
        contact_sheet(stored, first, flags.output)
        _say(f"images: {flags.output}")


def _with_kind(name: str) -> str:
    """`cifar100` means `tfds:cifar100`."""
    return name if ":" in name or name == "digits" else f"tfds:{name}"


def _usual_place(split: str) -> int:
    usual = ("train", "validation", "test")
    return usual.index(split) if split in usual else len(usual)


def _classes(names: tuple[str, ...]) -> str:
    more = ", …" if len(names) > 8 else ""
    return f"{len(names)} classes: {', '.join(names[:8])}{more}"


def _splits(found: list[Survey]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("split", "examples", "per class", "height x width"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for part in found:
        table.add_row(
            part.split,
            f"{part.size:,}",
            _range(part.per_class),
            _shapes(part),
        )
    return table


def _range(ends: tuple[int, int] | None) -> str:
    if ends is None:
        return "no labels"
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _shapes(part: Survey) -> str:
    shapes = [f"{height} x {width}" for height, width in part.shapes]
    return shapes[0] if len(shapes) == 1 else f"{len(shapes)} sizes, most {shapes[0]}"


def _numbers(values: tuple[float, ...]) -> str:
    return str(tuple(round(value, 4) for value in values))


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
