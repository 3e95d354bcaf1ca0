"""What the tests notice: a fault at a time, planted in a copy of the package."""

from pathlib import Path

import pytest

import kdjax
from tests.mutants.fault import Fault, occurrences
from tests.mutants.faults import FAULTS
from tests.mutants.run import SECONDS, check_sound, verdict

PACKAGE = Path(kdjax.__file__).parent
CHECKOUT = PACKAGE.parent

LEAST = 140
"""Faults there are; more may come."""

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=[fault.id for fault in FAULTS])


@each_fault
def test_a_fault_fits_the_code_of_today(fault):
    assert occurrences(fault, CHECKOUT) == 1, fault.file
    assert fault.find != fault.plant
    planted = (PACKAGE / fault.file).read_text().replace(fault.find, fault.plant)
    compile(planted, fault.file, "exec")


@each_fault
def test_the_tests_that_are_to_notice_are_there(fault):
    for place in fault.tests:
        file, _, name = place.partition("::")
        text = (CHECKOUT / "tests" / file).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in text, place


def test_no_part_of_the_package_is_left_out():
    assert len({fault.id for fault in FAULTS}) == len(FAULTS) >= LEAST
    parts = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert {Path(fault.file).parent for fault in FAULTS} == parts


@pytest.mark.mutants
@each_fault
def test_a_fault_is_noticed(fault):
    found = verdict(fault, CHECKOUT)
    assert found.word in ("killed", "timed out"), found


@pytest.fixture
def toy(tmp_path):
    """A package of one line, and a test of it."""
    files = {
        "kdjax/__init__.py": "",
        "kdjax/sums.py": "def add(a, b):\n    return a + b\n",
        "tests/test_sums.py": "from kdjax.sums import add\n\n\n"
        "def test_add():\n    assert add(2, 3) == 5\n\n\n"
        "def test_zero():\n    assert add(0, 0) == 0\n\n\n"
        "def test_wrong():\n    assert False\n\n\n"
        "def test_ended():\n    __import__('os').kill(__import__('os').getpid(), 9)\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def toy_fault(find, plant, test):
    return Fault("it", "sums.py", find, plant, "a kind", (f"test_sums.py::{test}",))


@pytest.mark.parametrize(
    ("find", "plant", "test", "word"),
    [
        ("a + b", "a - b", "test_add", "killed"),
        ("a + b", "a - b", "test_zero", "survived"),
        ("a + b", "[None for _ in iter(int, 1)]", "test_zero", "timed out"),
        ("a * b", "a - b", "test_add", "error"),
        ("a + b", "a - b", "test_ended", "error"),
    ],
)
def test_a_verdict_says_what_became_of_a_fault(toy, monkeypatch, find, plant, test, word):
    if word == "timed out":
        monkeypatch.setitem(SECONDS, "likely", 3.0)
    found = verdict(toy_fault(find, plant, test), toy)
    assert found.word == word, found
    assert (toy / "kdjax" / "sums.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert not check_sound([found], toy)


def test_a_test_that_fails_anyway_notices_nothing(toy):
    found = verdict(toy_fault("a + b", "a - b", "test_wrong"), toy)
    assert (found.word, found.by) == ("killed", "tests/test_sums.py::test_wrong")
    (error,) = check_sound([found], toy)
    assert error.word == "error"
    assert "test_wrong" in error.by
