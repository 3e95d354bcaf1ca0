"""What a planted fault is. Knows nothing of how it is run."""

from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """A likely mistake: a snippet of one file and what stands there instead."""

    id: str
    file: str
    """Below the package: `training/step.py`."""
    find: str
    """Exactly once in the file."""
    plant: str
    kind: str
    """What went wrong, in a few words."""
    tests: tuple[str, ...]
    """Those that most likely notice: files, or node ids, below `tests`; the quickest first."""


def occurrences(fault: Fault, checkout: Path) -> int:
    """How often the snippet is found; any number but one makes the fault stale."""
    path = checkout / "kdjax" / fault.file
    return path.read_text().count(fault.find) if path.is_file() else 0


def plant(fault: Fault, checkout: Path) -> None:
    """Put the fault into a copy of the package; ValueError if it is stale."""
    if (found := occurrences(fault, checkout)) != 1:
        raise ValueError(f"{fault.id}: its snippet is found {found} times in {fault.file}")
    path = checkout / "kdjax" / fault.file
    path.write_text(path.read_text().replace(fault.find, fault.plant))
