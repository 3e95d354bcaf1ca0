"""Two processes are one: through launch/local.sh, stopped, resumed, and equal to a single one."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax.cache.store import Store
from kdjax.cli import main
from kdjax.evaluation.load import load
from kdjax.experiment.json import read_json
from tests.losses.contract import specs
from tests.losses.support import error, own_variables, without
from tests.support import largest_difference

QUICK = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""For processes that compile more than they compute."""
ROOT = Path(__file__).parent.parent
LOCAL = ROOT / "launch" / "local.sh"
FLAGS = (
    *("--teacher.fit.epochs", "1", "--student.fit.epochs", "1", "--baseline", "False"),
    *("--teacher.model.widths", "4", "8", "--teacher.model.hidden", "16"),
    *("--runtime.log_every", "1"),
)


@pytest.fixture
def command(tmp_path) -> list[str]:
    """The data set is not prepared yet: two processes come upon that at once."""
    preset = ROOT / "configs" / "digits.py"
    kdjax = [sys.executable, "-m", "kdjax.cli", "distill", str(preset)]
    return [*kdjax, *FLAGS, "--data.directory", str(tmp_path / "tfds")]


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="launch/local.sh needs bash")


def lines(log: Path) -> int:
    return log.read_text().count("\n") if log.is_file() else 0


@needs_bash
def test_two_processes_stopped_and_resumed_equal_one(command, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch = ["bash", str(LOCAL), "2", "1", "--", *command, "--workdir", str(two)]
    first = subprocess.Popen(launch, env=QUICK, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while lines(two / "student" / "metrics.jsonl") < 3:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 75, out
    assert out.count("the same command goes on from here") == 2
    assert not (two / "student" / "result.json").exists()
    # Killed after the last step, before anything said so: nothing is left to hold the two together.
    (two / "teacher" / "result.json").unlink()
    assert_finishes(launch, QUICK)

    alone = command[command.index("distill") :]
    assert main([*alone, "--runtime.devices", "2", "--workdir", str(one)]) == 0
    assert_equal(one, two)


def assert_finishes(launch: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(launch, env=environment, timeout=150, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout


def assert_equal(one: Path, two: Path) -> None:
    for role in ("teacher", "student"):
        ours, theirs = (load(w / role, "latest").variables for w in (two, one))
        assert largest_difference(ours, theirs) < 2e-5
        kinds = [_identities(w / role / "metrics.jsonl") for w in (two, one)]
        assert kinds[0] == kinds[1]
    results = [read_json(w / "summary.json") for w in (two, one)]
    assert [r["processes"] for r in results] == [2, 1]
    assert all(r["models"]["student"]["latest"]["count"] == 360 for r in results)


def _identities(log: Path) -> list[tuple[str, int]]:
    lines = map(json.loads, log.read_text().splitlines())
    return [(line["kind"], line["step"]) for line in lines]


SLOW_EXPORT = """
import sys, time
from kdjax import cli
from kdjax.jobs import stages

export = stages.export

def slowly(*given):
    time.sleep(10)
    return export(*given)

stages.export = slowly
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@needs_bash
def test_two_processes_stop_together_while_the_first_is_busy_alone(command, tmp_path):
    """A request during a stage of the first process stops both before the next, not one of them."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, "-c", SLOW_EXPORT, *command[3:], "--workdir", str(tmp_path / "job")]
    launch = ["bash", str(LOCAL), "2", "1", "--", *program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    busy = subprocess.Popen(launch, env=environment, **pipes)
    said = ""
    while "is exported to" not in said:
        line = busy.stdout.readline()
        assert line, said
        said += line
    busy.send_signal(signal.SIGTERM)
    out, _ = busy.communicate(timeout=40)
    assert busy.returncode == 75, said + out
    assert out.count("stopped between two stages; the same command goes on from here") == 2
    assert (tmp_path / "job" / "export" / "card.json").exists()
    assert not (tmp_path / "job" / "summary.json").exists()
    assert_finishes(launch, environment)
    assert (tmp_path / "job" / "report.html").exists()


@pytest.mark.slow
@needs_bash
def test_two_processes_build_a_cache_and_learn_from_it(command, tmp_path):
    """Each asks for its part of the answers; what they learn is what one process learns."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    single = {**environment, "JAX_NUM_CPU_DEVICES": "2", "NPROC": "16"}
    *kdjax, _, preset = command[: command.index("distill") + 2]
    flags = [preset, *command[command.index("distill") + 2 :], "--student.fit.epochs", "3"]
    train = [*kdjax, "train", *flags, "--workdir", str(tmp_path / "job")]
    subprocess.run(train, env=single, check=True, timeout=300)
    taught = ["--teacher.run", str(tmp_path / "job" / "teacher"), "--teacher.cache.directory"]
    build = [*kdjax, "cache", "build", *flags, *taught]
    launch = ["bash", str(LOCAL), "2", "1", "--"]
    assert_finishes([*launch, *build, str(tmp_path / "two")], environment)
    subprocess.run([*build, str(tmp_path / "one")], env=single, check=True, timeout=300)
    two, one = (Store(tmp_path / name) for name in ("two", "one"))
    assert [part for part, _ in two.files()] == [part for part, _ in one.files()]
    assert len(list(one.files())) == 3
    for part, _ in one.files():
        ours, theirs = (store.load(part)["logits"].astype(float) for store in (two, one))
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)

    distil = [*kdjax, "distill", *flags, *taught, str(tmp_path / "one"), "--workdir"]
    assert_finishes([*launch, *distil, str(tmp_path / "both")], environment)
    subprocess.run([*distil, str(tmp_path / "alone")], env=single, check=True, timeout=300)
    ours, theirs = (load(tmp_path / w / "student", "latest").variables for w in ("both", "alone"))
    assert largest_difference(ours, theirs) < 2e-5

    next((tmp_path / "one" / "view-00001").iterdir()).unlink()
    done = subprocess.run(
        [*launch, *distil, str(tmp_path / "again")],
        env=environment,
        timeout=150,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode != 0
    assert "1 files are missing" in done.stdout


@pytest.mark.slow
@needs_bash
def test_every_loss_is_the_same_in_two_processes_of_four_devices(tmp_path):
    """Value, gradients, statistics and memory of the global batch."""
    losses = {spec.kind.__name__: spec.kind(**spec.given) for spec in specs()}
    own = {name: (loss, jax.device_get(own_variables(loss))) for name, loss in losses.items()}
    (tmp_path / "own").write_bytes(pickle.dumps(own))
    # One program of all losses, and most of the time goes into making it faster.
    quick = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    single = {**quick, "JAX_NUM_CPU_DEVICES": "1"}
    program = [sys.executable, "-m", "tests.losses.across", str(tmp_path / "own")]
    launch = ["bash", str(LOCAL), "2", "4", "--", *program, str(tmp_path / "two")]
    two = subprocess.Popen(launch, cwd=ROOT, env=quick, stdout=subprocess.PIPE, text=True)
    subprocess.run([*program, str(tmp_path / "one")], cwd=ROOT, env=single, check=True, timeout=500)
    out, _ = two.communicate(timeout=500)
    assert two.returncode == 0, out
    by_student, whole = pickle.loads((tmp_path / "one0").read_bytes())
    both = [pickle.loads((tmp_path / f"two{i}").read_bytes()) for i in (0, 1)]
    rows = jax.tree.map(lambda *halves: np.concatenate(halves), *(process[0] for process in both))
    for spec in specs():
        name = spec.kind.__name__
        assert worst(rows[name], by_student[name]) < 1e-5, name
        for _, ours in both:
            gap = worst(moving(ours[name], spec.flat), moving(whole[name], spec.flat))
            assert gap < 1e-5, name


def moving(whole, flat: tuple[str, ...]):
    """What is global, without the gradients that are rounding alone."""
    total, by_params, *left = whole
    return total, without(by_params, flat), left


def worst(ours, expected) -> float:
    return max(jax.tree.leaves(jax.tree.map(error, ours, expected)), default=0.0)
