"""The whole job, as a user runs it: to the end, killed, resumed, refused."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdjax.cli import main
from kdjax.evaluation.load import load
from kdjax.experiment.json import read_json
from kdjax.jobs.distill import distill
from kdjax.models import RowLSTM
from tests.support import TINY

PRESET = '''
from kdjax.data.augment import PadCrop
from kdjax.experiment import Data, Derive, Experiment, Fit, Runtime, Student, Teacher
from kdjax.losses import AttentionTransfer, CrossEntropy, SoftTarget
from kdjax.experiment.objective import Term
from kdjax.models import SmallCNN

def config():
    """A job of seconds."""
    fit = Fit(epochs=2, batch_size=128)
    return Experiment(
        name="job",
        data=Data(directory={directory!r}, augment=(PadCrop(padding=1),)),
        teacher=Teacher(model=SmallCNN(widths=(8, 16), hidden=32), fit=fit),
        student=Student(
            derive=Derive(width=0.5, recalibrate=2),
            fit=fit,
            losses=(Term(CrossEntropy(), 0.1), Term(SoftTarget(), 0.9), Term(AttentionTransfer())),
        ),
        runtime=Runtime(devices=1, log_every=2, eval_batch_size=120),
    )
'''


@pytest.fixture(scope="module")
def preset(data_directory, digits, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "job.py"
    path.write_text(PRESET.format(directory=str(data_directory)))
    return path


def start(*arguments: object) -> subprocess.Popen:
    """A process of its own, for what ends one; it compiles as quickly as this one does."""
    command = [sys.executable, "-m", "kdjax.cli", *map(str, arguments)]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "8", "NPROC": "16"}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **quick}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def run(*arguments: object) -> None:
    assert main([*map(str, arguments)]) == 0


def digests(workdir: Path) -> dict[str, str]:
    roles = ("teacher", "baseline", "student")
    return {role: load(workdir / role, "latest").digest for role in roles}


@pytest.fixture(scope="module")
def finished(preset, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("finished") / "job"
    run("distill", preset, "--workdir", workdir)
    return workdir


def test_a_job_leaves_everything_it_promises(finished):
    for name in ("experiment.json", "summary.json", "report.html", "export/model.stablehlo"):
        assert (finished / name).stat().st_size > 0
    for role in ("teacher", "baseline", "student"):
        for name in ("config.json", "metrics.jsonl", "checkpoints"):
            assert (finished / role / name).exists()
    summary = read_json(finished / "summary.json")
    assert list(summary["models"]) == ["teacher", "baseline", "student"]
    student, teacher = summary["models"]["student"], summary["models"]["teacher"]
    assert student["parameters"] < teacher["parameters"] / 2
    assert 0.1 < student["latest"]["top1"] <= 1
    assert student["latest"]["count"] == 360
    assert {"agreement", "teacher_kl"} <= set(student["best"])
    assert "agreement" not in teacher["best"]
    assert summary["command"].startswith("kdjax distill ")
    config = read_json(finished / "student" / "config.json")
    assert config["run"]["teacher"]["run"] == "../teacher"
    assert config["run"]["teacher"]["digest"] == load(finished / "teacher").digest


def test_the_student_begins_with_what_it_inherits(finished):
    """After two epochs the inheriting student is far ahead of fresh weights on its labels."""
    first = {
        role: json.loads((finished / role / "metrics.jsonl").read_text().splitlines()[0])
        for role in ("baseline", "student")
    }
    losses = {role: line["terms"]["cross_entropy"] for role, line in first.items()}
    assert losses["student"] < losses["baseline"]


def test_a_finished_job_is_not_done_again(preset, finished, capsys):
    before = digests(finished)
    began = (finished / "student" / "metrics.jsonl").stat().st_mtime
    run("distill", preset, "--workdir", finished)
    out, err = capsys.readouterr()
    assert err.count("is finished already") == 3
    assert "student" in out
    assert digests(finished) == before
    assert (finished / "student" / "metrics.jsonl").stat().st_mtime == began


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.is_file() else 0


KILLS = {
    "teacher": lambda w: lines(w / "teacher" / "metrics.jsonl") >= 8,
    "baseline": lambda w: lines(w / "baseline" / "metrics.jsonl") >= 3,
    "student": lambda w: lines(w / "student" / "metrics.jsonl") >= 8,
    "evaluation": lambda w: (w / "baseline" / "test.json").is_file(),
    "export": lambda w: (w / "export.tmp").exists() or (w / "export").exists(),
}


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(("student", "export"), id="two"),
        pytest.param(tuple(KILLS), id="every", marks=pytest.mark.slow),
    ],
)
def test_killed_in_every_stage_it_ends_with_the_same_weights(stages, preset, finished, tmp_path):
    """Before the first checkpoint of a run, after it, and where nothing is trained any more."""
    workdir = tmp_path / "job"
    for role in {"teacher", "baseline"} - set(stages):
        shutil.copytree(finished / role, workdir / role)
    for stage in stages:
        process = start("distill", preset, "--workdir", workdir)
        deadline = time.monotonic() + 200
        while not KILLS[stage](workdir):
            assert process.poll() is None, (stage, process.communicate()[1])
            assert time.monotonic() < deadline, stage
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (workdir / "report.html").exists(), stage
    run("distill", preset, "--workdir", workdir)
    assert digests(workdir) == digests(finished)
    ours, theirs = (read_json(w / "summary.json")["models"] for w in (workdir, finished))
    for role in theirs:
        assert ours[role]["latest"] == theirs[role]["latest"]
        assert ours[role]["best"] == theirs[role]["best"]


def test_sigterm_saves_and_says_so(preset, tmp_path):
    workdir = tmp_path / "job"
    process = start("distill", preset, "--workdir", workdir, "--teacher.fit.epochs", "200")
    while lines(workdir / "teacher" / "metrics.jsonl") < 5:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert err.strip().splitlines()[-1].endswith("the same command goes on from here.")
    steps = [int(p.name) for p in (workdir / "teacher" / "checkpoints").iterdir()]
    assert f"teacher stopped at step {max(steps)} of" in err


def test_eight_devices_give_the_losses_of_one(preset, finished, tmp_path):
    """Of a teacher, and of a student with all its terms; a baseline is trained like a teacher."""
    workdir = tmp_path / "job"
    flags = ("--runtime.devices", "8", "--baseline", "False")
    run("distill", preset, "--workdir", workdir, *flags)

    def losses(home: Path, role: str) -> list[float]:
        log = map(json.loads, (home / role / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in log if line["kind"] == "train"]

    for role in ("teacher", "student"):
        assert losses(workdir, role) == pytest.approx(losses(finished, role), rel=2e-4)
    summary = read_json(workdir / "summary.json")
    assert summary["hardware"].startswith("8 x")


def test_a_teacher_from_another_run(preset, finished, tmp_path, capsys):
    workdir = tmp_path / "job"
    teacher = finished / "teacher"
    run("distill", preset, "--workdir", workdir, "--teacher.run", teacher, "--baseline", "False")
    assert not (workdir / "teacher" / "checkpoints").exists()
    summary = read_json(workdir / "summary.json")
    assert list(summary["models"]) == ["teacher", "student"]
    ours, theirs = (load(home / "student", "latest").digest for home in (workdir, finished))
    assert ours == theirs
    evaluated = tmp_path / "metrics.json"
    run("evaluate", workdir / "student", "--output", evaluated)
    assert "agreement with teacher" in capsys.readouterr().out
    assert read_json(evaluated)["top1"] == summary["models"]["student"]["best"]["top1"]


@pytest.mark.slow
def test_a_recurrent_network_teaches_a_convolutional_one(tiny, tmp_path):
    experiment = tiny()
    network = RowLSTM(hidden=12, mean=(0.305,), std=(0.376,))
    experiment = dataclasses.replace(
        experiment,
        teacher=dataclasses.replace(experiment.teacher, model=network),
        student=dataclasses.replace(experiment.student, model=TINY),
        baseline=False,
    )
    summary = distill(experiment, tmp_path, "kdjax distill")
    assert summary["models"]["teacher"]["type"] == "RowLSTM"
    assert summary["models"]["student"]["latest"]["teacher_kl"] > 0


def test_export_and_report_commands(finished, tmp_path, capsys):
    run("export", finished / "student", "--output", tmp_path / "out")
    assert "max_difference" in capsys.readouterr().out
    assert (tmp_path / "out" / "card.json").is_file()
    run("report", finished, finished, "--output", tmp_path / "page.html")
    assert "<html" in (tmp_path / "page.html").read_text()[:200]


REFUSALS = [
    (("--student.fit.epochs", "3"), "holds another experiment .*student|fit.epochs: 2"),
    (("--seed", "1"), "holds another experiment .*seed: 0 → 1"),
    (("--teacher.run", "/nowhere"), "/nowhere is not a run directory"),
    (("--student.fit.batch_size", "2000"), "student.fit.batch_size: 2000 is more than the 1197"),
    (("--student.model", "resnet21"), r"unknown model 'resnet21'; did you mean .*resnet20"),
    (("--teacher.model.num_classes", "7"), "teacher.model.num_classes: 7, but digits has 10"),
    (("--student.losses.2.loss.stages", "stage9"), "has no stage 'stage9'; it has stage1, stage2"),
    (("--data.name", "tfds:cifar10"), "cifar10 is not prepared"),
    (("--runtime.devices", "9"), "runtime.devices: 9 asked for"),
]


@pytest.mark.parametrize(
    ("flags", "message"), REFUSALS, ids=lambda x: x if isinstance(x, str) else x[0]
)
def test_what_cannot_work_is_refused_in_a_line_and_nothing_is_lost(
    flags, message, preset, finished, capsys
):
    before = digests(finished)
    assert main(["distill", str(preset), "--workdir", str(finished), *map(str, flags)]) == 1
    err = capsys.readouterr().err
    last = err.strip().splitlines()[-2:]
    assert re.search(message, " ".join(last)), err
    assert "Traceback" not in err
    assert digests(finished) == before
