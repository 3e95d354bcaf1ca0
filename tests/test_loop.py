"""The loop: resuming, stopping, refusing, and no field that does nothing."""

import ctypes
import dataclasses
import json
import re
import resource
import shutil
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax.data.augment import Flip, PadCrop
from kdjax.data.sources import DataSet
from kdjax.evaluation.evaluate import Evaluate
from kdjax.experiment import Fit, Phase, Run, Runtime
from kdjax.experiment.json import read_json
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD, AdamW
from kdjax.experiment.schedules import Constant, Cosine, Steps
from kdjax.losses import CrossEntropy, Ramp, SoftTarget
from kdjax.training import circumstances
from kdjax.training.cadence import cadence, groups, validation_steps
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.items import digest
from kdjax.training.log import MetricLog, Reporter
from kdjax.training.loop import Diverged, Job, Preempted, fit
from kdjax.training.parallel import Devices, Spread
from kdjax.training.recipe import Recipe
from kdjax.training.run_directory import RunDirectory, locked
from tests.conftest import SPLITS
from tests.support import TINY, data_files, flip, tiny_fit, tiny_run

AHEAD = ()
"""What a run is told to have compiled."""


class Stop:
    """Says stop at the n-th poll."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def run_it(
    run: Run,
    path: Path,
    digits,
    *,
    devices=1,
    stop=lambda: False,
    speaks=False,
    teacher=None,
    **runtime,
):
    runtime = Runtime(log_every=3, compilation_cache=False, **runtime)
    job = Job(Devices(count=devices), runtime, Reporter(speaks=speaks), stop=stop)
    validation, metrics = digits.open("validation"), run.metrics
    evaluate = Evaluate(run.model, validation, job.devices, 240, metrics=metrics)

    def validate(variables):
        return {k: v for k, v in evaluate(variables).items() if isinstance(v, float | dict)}

    directory = RunDirectory(path)
    source = digits.open("train")
    how = {"validate": validate, "teacher": teacher, "ahead": AHEAD}
    fit(run, directory, digits.info, source, job, **how)
    return directory.result()


def final(path: Path, step: str = "latest", weights: str = "student") -> str:
    checkpoints = Checkpoints(path / "checkpoints")
    return digest(checkpoints.variables(checkpoints.find(step), weights))


def metric_lines(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def run(data_directory, digits):
    fields = {"epochs": 2, "batch_size": 128, "ema_decay": 0.9, "optimizer": AdamW()}
    run = tiny_run(data_directory, fit=tiny_fit(**fields))
    return dataclasses.replace(
        run, data=dataclasses.replace(run.data, augment=(PadCrop(padding=1),))
    )


@pytest.fixture(scope="module")
def undisturbed(run, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "teacher"
    run_it(run, path, digits)
    return path


@pytest.mark.parametrize("stops", [(1,), (9,), (4, 3), (18,)], ids=str)
def test_stopped_and_resumed_is_undisturbed(stops, run, digits, tmp_path, undisturbed):
    """At the first step, at a validation, twice in between, and an epoch apart."""
    path = tmp_path / "teacher"
    for after in stops:
        with pytest.raises(Preempted, match=r"teacher stopped at step \d+ of 19") as stopped:
            run_it(run, path, digits, stop=Stop(after))
        step = int(str(stopped.value).split()[4])
        assert Checkpoints(path / "checkpoints").steps()[-1] == step  # nothing is lost
    result = run_it(run, path, digits)
    assert final(path) == final(undisturbed)
    assert final(path, weights="ema") == final(undisturbed, weights="ema")
    assert metric_lines(path) == metric_lines(undisturbed)
    assert result["latest"] == read_json(undisturbed / "result.json")["latest"]


def test_resuming_in_other_circumstances_is_said(run, digits, tmp_path, monkeypatch, capsys):
    """Another version or another number of threads ends in other bits."""
    path = tmp_path / "teacher"
    monkeypatch.setenv("NPROC", "3")
    with pytest.raises(Preempted):
        run_it(run, path, digits, stop=Stop(1))
    monkeypatch.setenv("NPROC", "5")
    monkeypatch.setattr(circumstances, "version", lambda name: f"{name}-1.0")
    with pytest.raises(Preempted):
        run_it(run, path, digits, stop=Stop(1), speaks=True)
    said = " ".join(capsys.readouterr().err.split())
    assert f"jax {jax.__version__} → jax-1.0" in said
    assert "threads 3 → 5: it goes on, but not to the same bits" in said


def test_resuming_on_other_devices_continues_to_rounding(run, digits, tmp_path, undisturbed):
    path = tmp_path / "teacher"
    with pytest.raises(Preempted):
        run_it(run, path, digits, devices=8, stop=Stop(7))
    run_it(run, path, digits, devices=2)
    ours, theirs = (metric_lines(p)[-1] for p in (path, undisturbed))
    assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-4)


def test_a_finished_run_is_not_trained_again(run, digits, undisturbed):
    before = metric_lines(undisturbed), final(undisturbed)
    result = run_it(run, undisturbed, digits, stop=lambda: pytest.fail("polled"))
    assert result["steps"] == 19
    assert (metric_lines(undisturbed), final(undisturbed)) == before


def test_a_damaged_last_checkpoint_is_trained_again(run, digits, tmp_path, undisturbed, capsys):
    path = tmp_path / "teacher"
    shutil.copytree(undisturbed, path)
    (path / "result.json").unlink()
    for item in ("student", "training"):
        for file in data_files(path / "checkpoints" / "19" / item):
            flip(file)
    run_it(run, path, digits, speaks=True)
    assert final(path) == final(undisturbed)
    assert metric_lines(path) == metric_lines(undisturbed)
    said = capsys.readouterr().err
    assert re.search(r"checkpoints/19 is (damaged|unreadable).*; it is passed over", said)
    assert "goes on from step 9" in said


def test_another_experiment_in_the_directory_is_refused(run, digits, undisturbed):
    other = dataclasses.replace(run, seed=1, fit=dataclasses.replace(run.fit, epochs=3))
    with pytest.raises(ValueError, match=r"fit.epochs: 2.0 → 3; seed: 0 → 1.*another --workdir"):
        run_it(other, undisturbed, digits)


def test_other_data_of_the_same_name_is_another_experiment(run, digits, tmp_path):
    directory = RunDirectory(tmp_path / "teacher")
    directory.create(run, digits.info)
    directory.check(run, digits.info)
    grown = dataclasses.replace(digits.info, fingerprint="another")
    with pytest.raises(ValueError, match=r"holds another experiment \(data set.fingerprint: "):
        directory.check(run, grown)


def test_the_last_line_names_last_and_best(undisturbed):
    result = read_json(undisturbed / "result.json")
    assert list(result)[-2:] == ["latest", "best"]
    validations = [x for x in metric_lines(undisturbed) if x["kind"] == "validation"]
    assert [v["step"] for v in validations] == [9, 19]
    assert result["best"]["metrics"]["top1"] == max(v["top1"] for v in validations)


def test_a_diverging_run_says_where_and_keeps_the_last_good_checkpoint(
    data_directory, digits, tmp_path
):
    # The loss weight explodes in the second epoch, so the first checkpoint is good.
    ramp = Ramp(start=0.0, stop=1e15, begin=1.0, epochs=0.01)
    terms = (Term(CrossEntropy()), Term(CrossEntropy(label_smoothing=0.1), 1e20, ramp))
    run = tiny_run(data_directory, fit=tiny_fit(epochs=3))
    run = dataclasses.replace(run, losses=terms)
    message = r"teacher: .* not finite at step 1\d; the checkpoint of step 9 is kept"
    with pytest.raises(Diverged, match=message):
        run_it(run, tmp_path / "teacher", digits)
    checkpoints = Checkpoints(tmp_path / "teacher" / "checkpoints")
    assert checkpoints.steps() == [9]
    leaves = jax.tree.leaves(checkpoints.variables(9))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_a_log_is_cut_back_to_the_step_a_run_resumes_from(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path, 0)
    for step in range(1, 6):
        log.write("train", step, {"loss": 1.0})
        assert len(path.read_text().splitlines()) == step  # for whoever watches, or is killed
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')  # the crash came in the middle of a line
    MetricLog(path, 3).close()
    assert [line["step"] for line in map(json.loads, path.read_text().splitlines())] == [1, 2, 3]


def test_a_work_directory_has_one_owner(tmp_path):
    with locked(tmp_path / "job"):
        with pytest.raises(ValueError, match=r"job is in use by process \d+ on"):
            with locked(tmp_path / "job"):
                pass
    with locked(tmp_path / "job"):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"run": {', "config.json is not readable JSON"),
        ('{"kdjax": "0.1.0"}', "config.json is damaged: run is missing"),
    ],
)
def test_a_damaged_config_is_named(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        RunDirectory(tmp_path).read()


EFFECTS = {
    "epochs": 2,
    "batch_size": 64,
    "accumulate": 2,
    "optimizer": AdamW(),
    "schedule": Cosine(peak=0.01),
    "clip_norm": 0.1,
    "ema_decay": 0.5,
    "phases": (Phase(freeze=("student/conv1",)),),
    "eval_every": 0.5,
}


@pytest.fixture(scope="module")
def plain(data_directory, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "teacher"
    run = tiny_run(data_directory, fit=tiny_fit(batch_size=128))
    run_it(run, path, digits)
    return run, metric_lines(path)


OF_SEVERAL_TERMS = {"ema_teacher", "balance"}
"""Fields that do nothing where there is one term, the task."""


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(Fit) if f.name not in OF_SEVERAL_TERMS]
)
def test_every_field_of_fit_changes_the_run(name, plain, digits, tmp_path):
    run, lines = plain
    changed = dataclasses.replace(run, fit=dataclasses.replace(run.fit, **{name: EFFECTS[name]}))
    run_it(changed, tmp_path / "teacher", digits)
    assert metric_lines(tmp_path / "teacher") != lines


def test_balance_and_the_moving_average_as_teacher_reach_the_step(plain, digits, tmp_path):
    run, _ = plain
    fit = dataclasses.replace(run.fit, ema_decay=0.5, ema_teacher=True)
    terms = (Term(CrossEntropy()), Term(SoftTarget(), 3.0))
    lines = {}
    for balance in (None, 2):
        changed = dataclasses.replace(
            run, losses=terms, fit=dataclasses.replace(fit, balance=balance)
        )
        path = tmp_path / f"{balance}"
        run_it(changed, path, digits)
        lines[balance] = [x for x in metric_lines(path) if x["kind"] == "train"]
        felt = [x for x in metric_lines(path) if x["kind"] == "gradients"]
        assert felt
        assert set(felt[0]["student"]) == {"cross_entropy", "soft_target"}
    assert {x["weights"]["soft_target"] for x in lines[None]} == {3.0}
    assert len({x["weights"]["soft_target"] for x in lines[2]}) > 1


@pytest.mark.parametrize(
    "schedule", [Constant(peak=0.01), Steps(peak=0.05, epochs=(0.5,))], ids=str
)
def test_every_schedule_reaches_the_step(schedule, plain, digits, tmp_path):
    run, _ = plain
    changed = dataclasses.replace(run, fit=dataclasses.replace(run.fit, schedule=schedule))
    run_it(changed, tmp_path / "teacher", digits)
    rates = [x["learning_rate"] for x in metric_lines(tmp_path / "teacher") if x["kind"] == "train"]
    steps = [x["step"] for x in metric_lines(tmp_path / "teacher") if x["kind"] == "train"]
    expected = [float(schedule.schedule(1197 / 128, 9)(step - 1)) for step in steps]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"augment": (PadCrop(padding=1),)},
        {"augment": (Flip(),)},
        {"losses": (Term(CrossEntropy(), 2.0),)},
        {"losses": (Term(CrossEntropy(label_smoothing=0.1)),)},
        {"model": TINY.clone(mean=(0.1,))},
        {"model": TINY.clone(dtype="bfloat16")},
    ],
    ids=str,
)
def test_every_other_part_changes_the_run(change, plain, digits, tmp_path):
    run, lines = plain
    if "augment" in change:
        changed = dataclasses.replace(run, data=dataclasses.replace(run.data, **change))
    else:
        changed = dataclasses.replace(run, **change)
    run_it(changed, tmp_path / "teacher", digits)
    assert metric_lines(tmp_path / "teacher") != lines


def test_runtime_changes_nothing_but_the_log(plain, digits, tmp_path):
    run, lines = plain
    run_it(run, tmp_path / "teacher", digits, keep_latest=1, keep_best=2, eval_batch_size=100)
    assert metric_lines(tmp_path / "teacher") == lines
    assert SGD() == run.fit.optimizer


# --- Images on the devices, several steps at once ------------------------------------------------

TOGETHER = {"resident": True, "steps_per_dispatch": 3}


def numbers(lines: list[dict]) -> np.ndarray:
    """Every number of the training lines."""
    train = [line for line in lines if line["kind"] == "train"]
    return np.array([[x["step"], x["loss"], x["gradient_norm"]] for x in train])


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_steps_that_are_started_together_are_the_same_steps(
    devices, run, digits, tmp_path, undisturbed
):
    run_it(run, tmp_path / "teacher", digits, devices=devices, **TOGETHER)
    ours, theirs = (numbers(metric_lines(p)) for p in (tmp_path / "teacher", undisturbed))
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)


def test_a_run_of_groups_resumes_to_the_same_bits(run, digits, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_it(run, whole, digits, **TOGETHER)
    for after in (1, 3):
        with pytest.raises(Preempted):
            run_it(run, stopped, digits, stop=Stop(after), **TOGETHER)
    run_it(run, stopped, digits, **TOGETHER)
    assert final(stopped) == final(whole)
    assert metric_lines(stopped) == metric_lines(whole)


def test_the_balance_comes_at_its_steps(data_directory, digits):
    """And at no other: a group is cut for it, and what comes between stays whole."""
    run = tiny_run(data_directory, fit=tiny_fit(epochs=2, balance=6))
    recipe = Recipe.of(run, None, digits.info.sizes["train"])
    due = list(cadence(recipe, 0, 2))
    assert [d.steps.start for d in due if d.balance] == [0, 6, 12, 18]
    assert [d.steps.stop for d in due if d.validate] == [9, 19]
    assert [d.steps.start for d in due if len(d.steps) == 2] == [2, 4, 10, 14, 16]


@pytest.mark.parametrize(
    ("every", "steps"), [(1.5, {14, 19}), (5, {19}), (0.01, set(range(1, 20)))]
)
def test_a_run_is_validated_at_its_end_whatever_comes_before(every, steps, data_directory, digits):
    run = tiny_run(data_directory, fit=tiny_fit(epochs=2, eval_every=every))
    assert validation_steps(Recipe.of(run, None, digits.info.sizes["train"])) == steps


def test_groups_are_cut_by_the_number_of_the_step():
    def cut(first):
        return [(g.start, len(g)) for g in groups(first, 19, 3, {0, 7, 8, 14, 18}.__contains__)]

    whole = cut(0)
    assert [start for start, size in whole if size == 3] == [3, 9, 15]
    assert [start for start, size in whole if size == 1] == [0, 1, 2, 6, 7, 8, 12, 13, 14, 18]
    for first, _ in whole:
        assert cut(first) == [group for group in whole if group[0] >= first]


def test_images_that_are_read_while_training_cannot_be_resident(
    run, data_directory, tmp_path, monkeypatch
):
    monkeypatch.setattr("kdjax.data.sources.IN_MEMORY_BYTES", 0)
    digits = DataSet("digits", str(data_directory), SPLITS)
    with pytest.raises(ValueError, match=r"runtime.resident: the training images are too many"):
        run_it(run, tmp_path / "teacher", digits, resident=True)


class Heap(ctypes.Structure):
    """What glibc's `mallinfo2` says."""

    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]


def memory() -> tuple[float, float]:
    """MB that this process holds, and of them what its allocator has given out."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Heap
    heap = ask()
    return pages * resource.getpagesize() / 1e6, (heap.field7 + heap.field4) / 1e6


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs the GNU C library 2.33"
)
def test_memory_after_ten_thousand_steps_is_that_after_a_few_hundred(
    data_directory, digits, tmp_path
):
    """Once all that a run does has been done: logs, validations and checkpoints among it.

    What is given out stays the same; what the allocator holds back grows a little, and stops.
    """
    seen = []

    def note() -> bool:
        seen.append(memory())
        return False

    recipe = Recipe.of(tiny_run(data_directory), None, digits.info.sizes["train"])
    per_epoch = recipe.steps_per_epoch
    long = tiny_fit(epochs=10_000 / per_epoch, eval_every=100 / per_epoch)
    run_it(tiny_run(data_directory, fit=long), tmp_path, digits, stop=note)
    assert len(seen) > 9_900
    held, used = np.median(seen[250:350], axis=0)
    held_at_last, used_at_last = np.median(seen[-100:], axis=0)
    print(f"held {held:.0f}, then {held_at_last:.0f} MB; used {used:.1f}, then {used_at_last:.1f}")
    assert used_at_last < 1.02 * used
    assert held_at_last < 1.1 * held


def test_a_job_log_gets_a_line_a_minute_where_validations_are_far_apart(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 25))  # seconds between two looks at it
    monkeypatch.setattr("kdjax.training.log.time.monotonic", lambda: next(clock))
    reporter = Reporter()
    reporter.start("teacher", 0, 100)
    for step in range(1, 13):
        reporter.step(step, {"epoch": 0.1, "loss": 1.0, "terms": {}, "images_per_second": 7})
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) < 6
    assert all("images/s  ETA " in line and line.startswith("teacher   step ") for line in lines)


@pytest.mark.parametrize(
    "together",
    [pytest.param({}, id="one by one", marks=pytest.mark.slow), pytest.param(TOGETHER, id="all")],
)
def test_every_program_is_made_once_and_ahead(together, run, digits, tmp_path, monkeypatch):
    """The step while weights are drawn, the probe when it is asked: a CPU has no time to spare."""
    made, lower = [], Spread.lower

    def noting(self, *arguments):
        made.append((self, threading.current_thread().name))
        return lower(self, *arguments)

    two = dataclasses.replace(run, losses=(Term(CrossEntropy()), Term(CrossEntropy(0.1), 0.1)))
    monkeypatch.setattr(Spread, "lower", noting)
    run_it(two, tmp_path / "teacher", digits, devices=2, **together)
    ahead = [program for program, thread in made if thread.startswith("compile")]
    assert len(ahead) == (2 if together else 1)
    assert len({id(program) for program, _ in made}) == len(made) == len(ahead) + 2


def test_an_idle_host_compiles_all_of_it_behind_the_first_steps(run, digits, tmp_path, monkeypatch):
    """As with accelerators; and the run ends with the same bits."""
    others, threads, init, compile = [], [], Devices.__init__, Spread.compile

    def idle(self, *arguments, **named):
        init(self, *arguments, **named)
        self.idle_host = True

    def noting(self, *arguments):
        threads.append(threading.current_thread().name)
        return compile(self, *arguments)

    two = dataclasses.replace(run, losses=(Term(CrossEntropy()), Term(CrossEntropy(0.1), 0.1)))
    run_it(two, tmp_path / "busy", digits)
    monkeypatch.setattr(Devices, "__init__", idle)
    monkeypatch.setattr(Spread, "compile", noting)
    monkeypatch.setattr("tests.test_loop.AHEAD", (others.append,))
    run_it(two, tmp_path / "idle", digits)
    assert len(others) == 1
    assert len(threads) == 2
    assert all(name.startswith("compile") for name in threads)
    assert final(tmp_path / "idle") == final(tmp_path / "busy")
