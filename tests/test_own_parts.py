"""Parts of an experiment that kdjax does not know: as its own, but for errors."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.cli import main
from kdjax.data.augment import Transform
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import evaluate_run
from kdjax.experiment import (
    BalancedAccuracy,
    Data,
    Descent,
    Experiment,
    Fit,
    LearningRate,
    Measure,
    Metric,
    Phase,
    Student,
    Term,
)
from kdjax.experiment.json import from_dict, read_json, to_dict
from kdjax.experiment.optim import Optax, Optimizer
from kdjax.experiment.presets import load_experiment, load_preset
from kdjax.experiment.rules import check_views, validate
from kdjax.jobs.checking import check_run
from kdjax.losses import CrossEntropy, DistillationLoss, Loss
from kdjax.training.beginning import shapes
from kdjax.training.loop import Preempted, Teaching
from kdjax.training.recipe import Recipe
from kdjax.training.run_directory import RunDirectory
from tests.support import TINY, tiny_fit
from tests.test_loop import Stop, final, metric_lines, run_it
from tests.training import TEACHER, make_run, random_teacher

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "own_parts"
PRESET = FOLDER / "preset.py"
load_preset(PRESET)  # from here on the module beside it can be imported

from parts import Darken, HuberEmbedding, SignDescent, SuperclassAccuracy, Triangle  # noqa: E402

SHAPE = (8, 8, 1)
LABELS = Term(CrossEntropy())


def own_run(**fields: Any):
    """A distillation in which every part that may be is one's own."""
    fit = tiny_fit(optimizer=SignDescent(), schedule=Triangle(peak=0.003), **fields)
    terms, metrics = (LABELS, Term(HuberEmbedding())), (SuperclassAccuracy(), BalancedAccuracy())
    run = make_run(losses=terms, fit=fit, metrics=metrics)
    return dataclasses.replace(run, data=dataclasses.replace(run.data, augment=(Darken(),)))


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A run of its own, undisturbed."""
    path = tmp_path_factory.mktemp("own") / "student"
    run_it(own_run(), path, digits, teacher=Teaching(TEACHER, random_teacher()))
    return path


# --- As ours -------------------------------------------------------------------------------------


def test_stopped_and_resumed_with_own_parts_is_undisturbed(whole, digits, tmp_path):
    run, teacher = own_run(), Teaching(TEACHER, random_teacher())
    with pytest.raises(Preempted):
        run_it(run, tmp_path / "student", digits, teacher=teacher, stop=Stop(4))
    run_it(run, tmp_path / "student", digits, teacher=teacher)
    assert final(tmp_path / "student") == final(whole)
    assert metric_lines(tmp_path / "student") == metric_lines(whole)
    rates = [line["learning_rate"] for line in metric_lines(whole) if line["kind"] == "train"]
    assert rates[0] == 0.0
    assert rates[1] == pytest.approx(0.003 * 2 / 3)


def test_a_run_records_the_parts_as_they_were(whole):
    assert load(whole).run == own_run()
    text = (whole / "config.json").read_text()
    for name in ("Darken", "HuberEmbedding", "SignDescent", "SuperclassAccuracy", "Triangle"):
        assert f'"parts:{name}"' in text


def test_its_metrics_are_logged_and_evaluated(whole, digits):
    """Trained on one device, evaluated on all of them: the same, and what NumPy counts."""
    logged = [line["metrics"] for line in metric_lines(whole) if line["kind"] == "validation"]
    evaluated = evaluate_run(whole, checkpoint="latest", split="validation")["metrics"]
    assert evaluated == logged[-1]
    validation = digits.open("validation")
    answers = np.asarray(load(whole, "latest").logits(validation.images)).argmax(axis=-1)
    looped = np.isin([answers, validation.labels], [0, 6, 8, 9])
    share = (looped[0] == looped[1]).mean()
    assert evaluated["superclass_accuracy"] == pytest.approx(share, abs=1e-9)
    assert list(evaluated) == ["superclass_accuracy", "balanced_accuracy"]


def test_a_finished_run_may_be_measured_by_others(whole, digits, tmp_path):
    """No weight depends on them: it is the same run, whose config says what is computed now."""
    directory = RunDirectory(shutil.copytree(whole, tmp_path / "student"))
    other = dataclasses.replace(own_run(), metrics=(BalancedAccuracy(),))
    directory.check(other, digits.info)
    directory.create(other, digits.info)
    assert load(directory.path).run == other
    with pytest.raises(ValueError, match=r"holds another experiment \(seed: 0 → 1\)"):
        directory.check(dataclasses.replace(other, seed=1), digits.info)


def test_another_process_exports_it(whole, tmp_path):
    """And says where to look, if it cannot find the module; it never looks into the run."""
    command = [sys.executable, "-m", "kdjax.cli", "export", str(whole)]
    command += ["--output", str(tmp_path / "out")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    lost = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert lost.returncode == 1
    assert "put the folder that holds parts on PYTHONPATH" in lost.stderr
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(FOLDER)])
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "out" / "weights.safetensors").is_file()


@pytest.mark.slow
def test_a_job_takes_flags_of_the_parts(data_directory, tmp_path, capsys):
    """The preset, as a person runs it, a lot shorter."""
    own = ("--student.losses.2.loss.delta", "0.5", "--student.fit.optimizer.kept", "0.8")
    quick = ("--teacher.fit.epochs", "1", "--student.fit.epochs", "1", "--baseline", "False")
    where = ("--data.directory", str(data_directory), "--workdir", str(tmp_path))
    assert main(["distill", str(PRESET), *own, *quick, *where]) == 0
    run = load(tmp_path / "student").run
    assert run.losses[2] == Term(HuberEmbedding(delta=0.5))
    assert run.fit.optimizer == SignDescent(kept=0.8)
    assert {"report.html", "summary.json", "export"} <= {p.name for p in tmp_path.iterdir()}
    models = read_json(tmp_path / "summary.json")["models"]
    assert list(models) == ["teacher", "student"]
    for model in models.values():
        assert model["latest"]["metrics"]["superclass_accuracy"] > model["latest"]["top1"]
    assert "Superclass accuracy" in (tmp_path / "report.html").read_text()
    table = capsys.readouterr().out
    assert "superclass accuracy" in table
    assert f"{models['student']['latest']['metrics']['superclass_accuracy']:.4f}" in table
    assert main(["evaluate", str(tmp_path / "student")]) == 0
    assert f"{models['student']['best']['metrics']['superclass_accuracy']:.4f}" in (
        capsys.readouterr().out
    )
    # Two answers that are never told apart, and the rest: nothing is trained for it, or exported.
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("checkpoints/*/*")}
    all_one = ("--metrics.0.superclasses", *"0000000000")
    assert main(["distill", str(PRESET), *own, *quick, *where, *all_one]) == 0
    models = read_json(tmp_path / "summary.json")["models"]
    assert [m["best"]["metrics"]["superclass_accuracy"] for m in models.values()] == [1.0, 1.0]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("checkpoints/*/*")} == kept
    assert load(tmp_path / "student").run.metrics[0].superclasses == (0,) * 10


def test_the_example_is_valid_and_comes_back():
    experiment = load_experiment(str(PRESET))
    validate(experiment)
    assert from_dict(json.loads(json.dumps(to_dict(experiment))), Experiment, "x") == experiment


@pytest.mark.parametrize(
    "options",
    [(), (("b1", 0.95),), (("b1", 0.9), ("b2", 0.98)), (("nesterov", True), ("eps", 1e-6))],
)
def test_an_optimizer_of_optax_is_written_and_read(options):
    method = "adamw" if ("nesterov", True) in options else "lion"
    optimizer = Optax(method=method, options=options, weight_decay=0.1)
    fit = tiny_fit(phases=(Phase(optimizer=optimizer),), optimizer=optimizer)
    experiment = Experiment(name="x", student=Student(model=TINY, fit=fit))
    validate(experiment)
    again = from_dict(json.loads(json.dumps(to_dict(experiment))), Experiment, "x")
    assert again == experiment
    assert [type(value) for _, value in again.student.fit.optimizer.options] == [
        type(value) for _, value in options
    ]


@dataclass(frozen=True, kw_only=True)
class Paired(LearningRate):
    pair: tuple[str, float] = ("a", 0.5)


def test_a_pair_of_two_kinds_comes_back():
    experiment = Experiment(name="x", student=Student(fit=Fit(schedule=Paired(pair=("b", 2.0)))))
    assert from_dict(json.loads(json.dumps(to_dict(experiment))), Experiment, "x") == experiment
    values = to_dict(experiment)
    values["student"]["fit"]["schedule"]["pair"] = ["b"]
    with pytest.raises(ValueError, match=r"\['b'\] has not 2 values @ .*schedule.pair"):
        from_dict(values, Experiment, "x")


def test_a_phase_takes_them_too():
    phase = Phase(losses=(Term(HuberEmbedding()),), optimizer=SignDescent(), schedule=Triangle())
    experiment = Experiment(name="x", student=Student(model=TINY, fit=tiny_fit(phases=(phase,))))
    validate(experiment)
    assert from_dict(to_dict(experiment), Experiment, "x") == experiment


def test_their_fields_obey_their_own_rules():
    student = Student(model=TINY, losses=(Term(HuberEmbedding(delta=0.0)),))
    with pytest.raises(ValueError, match=r"^student.losses.0.loss.delta: 0.0 cannot work"):
        validate(Experiment(name="x", student=student))
    with pytest.raises(ValueError, match=r"^student.fit.optimizer.kept: 1.0 cannot work"):
        validate(Experiment(name="x", student=Student(fit=Fit(optimizer=SignDescent(kept=1.0)))))


# --- What cannot be kept -------------------------------------------------------------------------


@dataclass(frozen=True)
class Holder:
    """Whose types no test checks."""

    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: Optimizer = field(default_factory=Optax)
    metrics: tuple[Measure, ...] = ()


class Undecorated(Descent):
    kept: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Unwritable(LearningRate):
    points: Any = None


class Bare(DistillationLoss):
    activation: Any = None


@dataclass(frozen=True, kw_only=True)
class Bulky(Metric):
    costs: Any = field(default_factory=lambda: np.ones((2, 2)))


def local_class():
    @dataclass(frozen=True, kw_only=True)
    class Hidden(Transform):
        most: float = 0.5

    return Hidden()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Holder(loss=lambda student, teacher, batch: 0.0), r"lambda> .* is no DistillationLoss"),
        (Holder(optimizer=optax.sgd(0.1)), r"is no Descent; give one of ours, or of a class"),
        (Fit(optimizer=Undecorated()), r"^Undecorated is no dataclass, so that its fields"),
        (Fit(schedule=Unwritable(points=np.ones(3))), r"^Unwritable.points: array.* does"),
        (Fit(schedule=Unwritable(points=max)), r"^Unwritable.points: <built-in function max> does"),
        (Term(Bare(activation=jax.nn.relu)), r"^Bare.activation: .* does not come back from JSON"),
        (Holder(metrics=(max,)), r"max> is no Metric; give one of ours, or of a"),
        (Experiment(name="x", metrics=(Bulky(),)), r"(?s)^Bulky.costs: array.* does not come"),
        (Data(augment=(local_class(),)), r"^Hidden cannot be imported by later commands from"),
    ],
)  # fmt: skip
def test_what_could_not_be_read_again_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        to_dict(value)


# --- What would fail later -----------------------------------------------------------------------


class Wide(DistillationLoss):
    def __call__(self, student, teacher, batch):
        return student.logits


class Summed(DistillationLoss):
    def __call__(self, student, teacher, batch):
        return student.logits.sum()


class Short(DistillationLoss):
    def __call__(self, student, teacher, batch):
        return student.logits.sum(axis=-1).astype("bfloat16")


class MeanOfAll(DistillationLoss):
    def __call__(self, student, teacher, batch):
        return student.logits.mean(axis=-1).sum(keepdims=True)


class Dropping(DistillationLoss):
    @nn.compact
    def __call__(self, student, teacher, batch):
        return nn.Dropout(0.5, deterministic=False)(student.logits).mean(axis=-1)


class Cached(DistillationLoss):
    @nn.compact
    def __call__(self, student, teacher, batch):
        return student.logits.mean(axis=-1) + self.variable("cache", "c", jnp.zeros, ()).value


class Remembering(DistillationLoss):
    @nn.compact
    def __call__(self, student, teacher, batch):
        seen = self.variable("memory", "seen", jnp.zeros, ())
        seen.value += student.logits.mean()
        return student.logits.mean(axis=-1) - seen.value


class Growing(DistillationLoss):
    whole_batch: ClassVar[bool] = True

    @nn.compact
    def __call__(self, student, teacher, batch):
        seen = self.variable("memory", "seen", jnp.zeros, (), jnp.int32)
        if not self.is_initializing():
            seen.value = seen.value + 0.5
        return student.logits.mean()


class Broken(DistillationLoss):
    def __call__(self, student, teacher, batch):
        return student.logits.nothing


@dataclass(frozen=True, kw_only=True)
class Cropped(Transform):
    def __call__(self, key, image):
        return image[1:]


@dataclass(frozen=True, kw_only=True)
class Floating(Transform):
    def __call__(self, key, image):
        return image / 2


@dataclass(frozen=True, kw_only=True)
class Scalar(Descent):
    def transform(self, rate, share=None):
        return optax.stateless(lambda updates, params: jax.tree.map(jnp.sum, updates))


@dataclass(frozen=True, kw_only=True)
class Drifting(Descent):
    def transform(self, rate, share=None):
        return optax.GradientTransformation(
            lambda params: {"n": 0}, lambda updates, state, params: (updates, {"n": 1.0})
        )


@dataclass(frozen=True, kw_only=True)
class Drawing(Descent):
    def transform(self, rate, share=None):
        return optax.GradientTransformation(
            lambda params: jax.random.key(0), lambda updates, state, params: (updates, state)
        )


@dataclass(frozen=True, kw_only=True)
class Raising(Descent):
    def transform(self, rate, share=None):
        return {}["x"]


@dataclass(frozen=True, kw_only=True)
class Dividing(LearningRate):
    def schedule(self, steps_per_epoch, steps):
        return optax.constant_schedule(1 / (steps - steps))


@dataclass(frozen=True, kw_only=True)
class TwoRates(LearningRate):
    def schedule(self, steps_per_epoch, steps):
        return lambda step: jnp.stack([step, step])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Wide(), r"^Wide returns float32\[2, 10\] for a batch of 2 examples; .* float32, \(2,\)"),
        (Summed(), r"^Summed returns float32\[\] for a batch of 2 examples"),
        (Short(), r"^Short returns bfloat16\[2\] for a batch of 2 examples; it must"),
        (MeanOfAll(), r"^MeanOfAll returns float32\[1\] for a batch of 2 examples"),
        (Dropping(), r"^Dropping: InvalidRngError: .* \(test_own_parts.py, line"),
        (
            Cached(),
            r"^Cached: its variables in cache would be lost; keep them in params",
        ),
        (
            Remembering(),
            r"^Remembering: memory is that of losses of the whole batch; set",
        ),
        (Growing(), r"^Growing: its memory after a step differs from that before"),
        (Broken(), r"^Broken: AttributeError: .*nothing.* \(test_own_parts.py, line \d+\)"),
    ],
)
def test_a_loss_is_traced_before_training(loss, message, digits):
    with pytest.raises(ValueError, match=message):
        check_run(make_run(losses=(Term(loss),)), TEACHER, digits)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (Cropped(), r"^data.augment.0: Cropped makes uint8\[7, 8, 1\] of uint8\[8, 8, 1\]"),
        (Floating(), r"^data.augment.0: Floating makes float32\[8, 8, 1\] of uint8"),
    ],
)
def test_a_view_is_traced_before_training(view, message):
    with pytest.raises(ValueError, match=message):
        check_views(Data(augment=(view,)), SHAPE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": Scalar()}, r"^Scalar: its updates after a step differ from those before"),
        ({"optimizer": Drifting()}, r"^Drifting: its state after a step differ"),
        ({"optimizer": Drawing()}, r"^Drawing: a random key in its state cannot be kept"),
        ({"optimizer": Raising()}, r"^Raising: KeyError: 'x' \(test_own_parts.py, line \d+\)"),
        ({"schedule": Dividing()}, r"^Dividing: ZeroDivisionError: .* \(test_own_parts.py, line"),
        ({"schedule": TwoRates()}, r"^TwoRates: a rate has shape \[2\]; return one number a step"),
        ({"optimizer": Descent()}, r"^Descent has no transform; define it"),
    ],
)
def test_an_optimizer_and_a_schedule_are_traced_before_training(fields, message):
    recipe = Recipe.of(make_run(losses=(LABELS,), fit=tiny_fit(**fields)), TEACHER, 1200)
    with pytest.raises(ValueError, match=message):
        recipe.check(shapes(recipe, SHAPE).params)


def test_the_documentation_shows_the_code_that_runs():
    page = (ROOT / "docs" / "own-parts.md").read_text()
    source = (FOLDER / "parts.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    assert all(block.strip() in source for block in blocks)
