"""What a benchmark counts; how fast anything is, is no test."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax.benchmark import measure
from kdjax.benchmark.bench import benchmark
from kdjax.benchmark.picture import draw, shares
from kdjax.benchmark.subject import subject_of
from kdjax.benchmark.whole_loop import steps_for, whole_loop
from kdjax.cli import main
from kdjax.experiment import DOT
from kdjax.experiment.objective import Term
from kdjax.losses import AttentionTransfer, CrossEntropy


class Clock:
    """Time passes only where a program says so."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        for name in ("perf_counter", "process_time"):
            monkeypatch.setattr(measure.time, name, lambda: self.now)

    def program(self, *seconds: float):
        left = [*seconds]

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_programs_take_turns_and_the_median_counts(monkeypatch):
    clock = Clock(monkeypatch)
    order = []

    def noted(name, program):
        def call():
            order.append(name)
            program()

        return call

    slow = noted("slow", clock.program(9.0, 1.0, 2.0, 5.0, 1.0))  # compiles, is disturbed once
    quick = noted("quick", clock.program(0.025))
    found = measure.interleaved({"slow": slow, "quick": quick}, rounds=3)
    assert (found["slow"].seconds, found["slow"].fastest) == (2.0, 1.0)
    assert found["slow"].calls == 3
    assert found["quick"].seconds == pytest.approx(0.025)
    assert found["quick"].calls == 6  # two together take long enough for the clock
    assert order[4:] == ["slow", "quick", "quick"] * 3


@pytest.fixture
def quick(tiny):
    return dataclasses.replace(tiny(), baseline=False)


def test_a_benchmark_says_what_it_measured(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("kdjax.benchmark.whole_loop.LEAST", 12)
    monkeypatch.setattr("kdjax.benchmark.bench.first_step", lambda *_: {"cold": 2.0, "warm": 1.0})
    result = benchmark(quick, rounds=1, loop_seconds=1e-3)
    parts = {"step", "cached step", "teacher", "student forward", "optimizer", "input"}
    assert parts <= result["timings"].keys()
    assert all(timing["seconds"] > 0 for timing in result["timings"].values())
    step, loop = result["step"], result["loop"]
    assert step["flops"] > 0
    assert step["images_a_second"] == pytest.approx(128 / result["timings"]["step"]["seconds"])
    assert loop["seconds_a_step_with_all"] >= loop["seconds_a_step"] > 0
    assert loop["steps"] == 12
    assert result["about"]["device"] == "8 x cpu"
    assert json.loads(json.dumps(result)) == result
    assert sum(shares(result).values()) >= result["timings"]["step"]["seconds"] * (1 - 1e-9)
    draw(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_random_images_stand_in_for_data_that_is_not_there(quick):
    absent = dataclasses.replace(quick, data=dataclasses.replace(quick.data, name="tfds:cifar10"))
    subject = subject_of(absent, (16, 12, 1))
    assert subject.info.shape == subject.source.images.shape[1:] == (16, 12, 1)
    assert len(subject.info.classes) == 10
    assert len(np.unique(subject.source.labels)) == 10


def test_a_loss_of_maps_has_no_cached_step(quick):
    from kdjax.benchmark.parts import _logits_do

    terms = (Term(CrossEntropy()), Term(AttentionTransfer(), 100.0))
    student = dataclasses.replace(quick.student, losses=terms)
    assert _logits_do(subject_of(quick, None))
    assert not _logits_do(subject_of(dataclasses.replace(quick, student=student), None))


@pytest.mark.slow
def test_an_optimizer_that_wants_the_task_apart_is_measured(quick):
    student = dataclasses.replace(
        quick.student, fit=dataclasses.replace(quick.student.fit, optimizer=DOT())
    )
    result = benchmark(dataclasses.replace(quick, student=student), rounds=1, loop_seconds=1e-3)
    assert result["timings"]["optimizer"]["seconds"] > 0


def test_the_loop_is_the_real_one(quick, monkeypatch):
    """What a slow validation costs is seen, and spread over the steps between two of them."""
    import time

    from kdjax.benchmark import whole_loop as module

    def slow(*arguments):
        def evaluate(variables):
            time.sleep(0.5)
            return {"top1": 0.5}

        return evaluate

    monkeypatch.setattr(module, "Evaluate", slow)
    subject = subject_of(quick, None)
    found = whole_loop(subject, quick.runtime, subject.source, 12, lambda: time.sleep(0.01))
    assert 0.01 <= found["seconds_a_step_alone"] < 0.1
    assert found["seconds_a_validation"] > 0.45
    between = quick.student.fit.eval_every * subject.recipe.steps_per_epoch
    spread = found["seconds_a_step_with_all"] - found["seconds_a_step"]
    assert spread == pytest.approx(found["seconds_a_validation"] / between)


def test_the_loop_runs_for_a_while_within_reason():
    assert [steps_for(10, step) for step in (100.0, 0.1, 1e-6)] == [24, 100, 4000]


def test_bad_flags_are_refused(capsys):
    assert main(["benchmark", "configs/digits.py", "--rounds", "0"]) == 1
    assert "--rounds must be at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_measures_the_digits(tmp_path, capsys):
    out = tmp_path / "digits.json"
    flags = ["--rounds", "1", "--loop_seconds", "0.1", "--output", str(out)]
    assert main(["benchmark", "configs/digits.py", *flags]) == 0
    assert "first step" in capsys.readouterr().out
    first = json.loads(out.read_text())["first_step_seconds"]
    assert first["cold"] > first["warm"] > 0
    assert out.with_suffix(".png").is_file()
