"""Tests on a copy of the package with a fault in it; the checkout itself is only read."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tests.mutants.fault import Fault, plant

Suite = Literal["likely", "all"]

SECONDS = {"likely": 240.0, "all": 3600.0}
"""How long tests may take before the fault counts as noticed: they would never have ended."""
PYTEST = ("-x", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=no", "-rfE")
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
LEFT_OUT = shutil.ignore_patterns(".git", ".*_cache", ".venv", ".hypothesis", "runs")
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
"""Of a process by itself; who ends it from outside has not noticed a fault."""
OURS = "tests/test_mutants.py"
"""Would notice any change of the source, and so says nothing."""
ALREADY = "(without any fault)"


class Verdict(NamedTuple):
    """What became of a fault."""

    id: str
    word: Literal["killed", "timed out", "survived", "error"]
    by: str
    """The test that failed first, or what went wrong."""
    seconds: float


@contextlib.contextmanager
def copied(checkout: Path) -> Iterator[Path]:
    """The checkout in a folder of its own, that shares the compiled programs and nothing else."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "kdjax"
        shutil.copytree(checkout, copy, ignore=LEFT_OUT)
        ours, theirs = (root / ".pytest_cache" / "kdjax" for root in (copy, checkout))
        (theirs / "xla").mkdir(parents=True, exist_ok=True)
        ours.mkdir(parents=True)
        (ours / "xla").symlink_to(theirs.resolve() / "xla")
        yield copy


def verdict(fault: Fault, checkout: Path, suite: Suite = "likely") -> Verdict:
    """Whether the tests notice."""
    began = time.monotonic()
    with copied(checkout) as copy:
        try:
            plant(fault, copy)
        except ValueError as error:
            return Verdict(fault.id, "error", str(error), 0.0)
        arguments = ["tests", f"--ignore={OURS}"] if suite == "all" else _places(fault.tests)
        code, text = _pytest(copy, arguments, SECONDS[suite])
    seconds = time.monotonic() - began
    if code is None:
        return Verdict(fault.id, "timed out", "", seconds)
    if failed := FAILED.search(text):
        return Verdict(fault.id, "killed", failed[1], seconds)
    if code == 0 and " passed" in text:
        return Verdict(fault.id, "survived", "", seconds)
    if -code in CRASHES:
        return Verdict(fault.id, "killed", signal.Signals(-code).name, seconds)
    last = next(iter(reversed(text.strip().splitlines())), "")
    return Verdict(fault.id, "error", f"pytest ended with {code}: {last}", seconds)


def check_sound(found: Iterable[Verdict], checkout: Path) -> list[Verdict]:
    """The tests that noticed must pass without a fault; an error for each that does not."""
    killers = sorted({each.by for each in found if each.word == "killed" and "::" in each.by})
    if not killers:
        return []
    with copied(checkout) as copy:
        code, text = _pytest(copy, [*killers, "--maxfail=1000"], SECONDS["all"])
    failed = [f"{test} fails" for test in FAILED.findall(text)]
    wrong = failed or ([] if code == 0 else [f"pytest ended with {code}"])
    return [Verdict(ALREADY, "error", text, 0.0) for text in wrong]


def _places(tests: Sequence[str]) -> list[str]:
    return [f"tests/{test}" for test in tests]


def _pytest(copy: Path, arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Exit code and output; no code if it had to be stopped, with all that it had started."""
    command = [sys.executable, "-m", "pytest", *PYTEST, *arguments]
    outside = {name: x for name, x in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**outside, "PYTHONPATH": str(copy), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=seconds)
            return process.returncode, text
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
