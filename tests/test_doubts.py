"""What is wrong with a teacher, from made-up answers and from broken networks."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.data.sources import Arrays
from kdjax.evaluation.doubts import accuracy, other_order, outdone, refuse, weakness
from kdjax.evaluation.load import load
from kdjax.evaluation.probe import IMAGES, Probe
from kdjax.experiment import Fit
from kdjax.jobs.distill import distill, train
from kdjax.models import infer
from kdjax.training.parallel import Devices
from kdjax.training.run_directory import RunDirectory
from kdjax.training.untrained import write_untrained
from tests.support import tiny_experiment

CLASSES = tuple("abcdefghij")


def answered(order, right, *, examples=400, seed=0):
    """Logits of a teacher that answers class c with `order[c]`, and with chance where it errs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(order), examples)
    by_chance = rng.integers(0, len(order), examples)
    answers = np.where(rng.random(examples) < right, np.asarray(order)[labels], by_chance)
    return 9 * np.eye(len(order))[answers] + rng.normal(size=(examples, len(order))), labels


def test_a_good_teacher_raises_no_doubts():
    logits, labels = answered(range(10), 0.9)
    refuse(logits, labels, CLASSES)
    assert weakness(logits, labels) == ""


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(10)), right=st.floats(0.75, 1.0), seed=st.integers(0, 99))
def test_another_order_is_found_and_the_right_one_is_not(order, right, seed):
    logits, labels = answered(order, right, seed=seed)
    kept = sum(a == i for i, a in enumerate(order))
    if kept <= 1:
        assert list(other_order(logits, labels).values()) == list(order)
    if kept == 10:
        assert other_order(logits, labels) == {}


@settings(max_examples=30, deadline=None)
@given(
    size=st.sampled_from([(2, 2000), (10, 2000), (100, 2000), (1000, 2000), (1000, 60)]),
    seed=st.integers(0, 99),
)
def test_chance_is_no_order(size, seed):
    """Two examples a class, and more so one, fit any order that is made from them."""
    classes, examples = size
    logits, labels = answered(range(classes), 0.0, examples=examples, seed=seed)
    assert other_order(logits, labels) == {}
    refuse(logits, labels, tuple(map(str, range(classes))))
    assert "always naming the most frequent class would give" in weakness(logits, labels)


def test_an_order_of_a_thousand_classes_is_found_with_two_examples_of_each():
    order = np.roll(np.arange(1000), 1)
    assert other_order(*answered(order, 0.8, examples=2048))
    assert not other_order(*answered(np.arange(1000), 0.8, examples=2048))


def test_one_answer_to_everything_is_no_order():
    labels = np.arange(100) % 10
    logits = np.tile(np.eye(10)[3], (100, 1))
    assert other_order(logits, labels) == {}
    assert "nearly the same answer" in weakness(logits, labels)


def test_the_error_gives_an_example_and_a_remedy():
    logits, labels = answered([1, 0, *range(3, 10), 2], 0.95)
    message = r"class 0 of the data \(a\) is answered with 1 \(b\), and 10 classes are moved"
    with pytest.raises(ValueError, match=message):
        refuse(logits, labels, CLASSES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    logits, labels = answered(range(10), 0.9)
    logits[3, 4] = value
    with pytest.raises(ValueError, match="not finite for 1 of 400 validation images"):
        refuse(logits, labels, CLASSES)


@pytest.mark.parametrize(("right", "doubted"), [(0.0, True), (0.05, True), (0.2, False)])
def test_hardly_better_than_guessing(right, doubted):
    logits, labels = answered(range(10), right, examples=4000)
    assert bool(weakness(logits, labels)) == doubted


def test_many_of_one_class_are_not_skill():
    labels = np.where(np.arange(200) < 190, 0, 1)
    logits = np.random.default_rng(0).normal(size=(200, 2)) + np.array([9.0, 0.0])
    logits[:5] *= -1
    assert "always naming the most frequent class would give 95.0%" in weakness(logits, labels)


def test_a_teacher_that_is_no_better_than_the_student_alone():
    assert outdone(0.9, 0.8999, 100) == []
    for alone in (0.9, 0.95):
        (text,) = outdone(0.9, alone, 100)
        assert (
            f"90.0% of 100 validation images correctly, and the student alone {alone:.1%}" in text
        )


@pytest.fixture(scope="module")
def teacher(data_directory, digits, tmp_path_factory):
    """A run of the tiny teacher that has learnt enough."""
    workdir = tmp_path_factory.mktemp("teacher")
    train(tiny_experiment(data_directory, epochs=6), workdir)
    return load(workdir / "teacher")


def written(teacher, path, model=None, change=lambda variables: variables):
    """The teacher as if it were imported, with another model or other weights."""
    model = model or teacher.model
    run = dataclasses.replace(teacher.run, model=model, losses=(), fit=Fit(epochs=0))
    variables = change(jax.device_get(dict(teacher.variables)))
    write_untrained(RunDirectory(path), run, teacher.info, variables)
    return load(path)


def with_classifier(change):
    """The variables with another kernel and bias of the last layer."""

    def changed(variables):
        params = variables["params"]
        return {**variables, "params": {**params, "classifier": change(params["classifier"])}}

    return changed


def silent(variables):
    """All logits zero."""
    return with_classifier(lambda layer: jax.tree.map(np.zeros_like, layer))(variables)


def doubts(digits, network, devices=1):
    return Probe(digits.open("validation"), 10, Devices(count=devices), 64).doubts(network)


def test_the_normalisation_that_would_fit_is_named(teacher, digits, tmp_path):
    model = teacher.model.clone(mean=(6.0,), std=(0.05,))
    (text,) = doubts(digits, written(teacher, tmp_path / "run", model))
    found = float(text.split("it would be ")[1].split("%")[0]) / 100
    right = Probe(digits.open("validation"), 10, Devices(count=1), 64).accuracy(teacher)
    assert found == pytest.approx(right, abs=0.03)
    assert "with mean 0.3" in text
    assert "instead of teacher.model.mean 6 and teacher.model.std 0.05" in text


def test_weights_that_fit_nothing_are_imported_again(teacher, digits, tmp_path):
    (text,) = doubts(digits, written(teacher, tmp_path / "run", change=silent))
    assert text.startswith("the teacher gives 240 validation images nearly the same answer")
    assert "teacher.model.mean and teacher.model.std" in text


def test_a_teacher_that_was_trained_here_is_to_be_trained_longer(teacher, digits, tmp_path):
    broken = dataclasses.replace(written(teacher, tmp_path / "run", change=silent), step=9)
    (text,) = doubts(digits, broken)
    assert text.endswith("train it longer, or otherwise (teacher.fit).")


@pytest.mark.parametrize("devices", [1, 8])
def test_the_same_is_seen_on_any_devices(devices, teacher, digits):
    probe = Probe(digits.open("validation"), 10, Devices(count=devices), 64)
    images, labels = digits.open("validation").read(np.arange(240))
    logits = jax.jit(lambda x: infer(teacher.model, teacher.variables, x).logits)(images)
    assert probe.accuracy(teacher) == accuracy(np.asarray(logits), labels)
    assert doubts(digits, teacher, devices) == []


@pytest.mark.parametrize(("classes", "count"), [(10, IMAGES), (1000, 2000)])
def test_no_more_images_are_read_than_needed(classes, count):
    labels = np.arange(10 * IMAGES) // IMAGES
    split = Arrays(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    seen = Probe(split, classes, Devices(count=1), 64).images.labels
    assert len(seen) == count
    assert np.ptp(np.bincount(seen)) <= 1


def job(teacher, data_directory, run, **fields):
    experiment = tiny_experiment(data_directory)
    named = dataclasses.replace(experiment.teacher, run=str(run))
    student = dataclasses.replace(experiment.student, model=teacher.model)
    return dataclasses.replace(experiment, teacher=named, student=student, **fields)


def test_a_teacher_of_other_classes_is_refused_before_anything_is_trained(
    teacher, data_directory, tmp_path
):
    roll = with_classifier(lambda layer: jax.tree.map(lambda x: np.roll(x, 1, axis=-1), layer))
    written(teacher, tmp_path / "run", change=roll)
    with pytest.raises(ValueError, match=r"class 0 of the data \(0\) is answered with 1 \(1\)"):
        distill(job(teacher, data_directory, tmp_path / "run"), tmp_path / "job", "")
    assert not (tmp_path / "job" / "baseline").exists()


def test_warnings_are_said_and_stand_in_the_log_of_the_student(
    teacher, data_directory, tmp_path, capsys
):
    written(teacher, tmp_path / "run", change=silent)
    experiment = job(teacher, data_directory, tmp_path / "run")
    distill(experiment, tmp_path / "job", "kdjax distill")
    log = (tmp_path / "job" / "student" / "metrics.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line) for line in log[:3])
    assert [first["kind"], second["kind"], third["kind"]] == ["warning", "warning", "train"]
    assert "nearly the same answer" in first["text"]
    assert "the student alone" in second["text"]
    said = capsys.readouterr().err
    assert said.count(f"teacher   warning: {first['text']}") == 1
    assert said.index("nearly the same") < said.index("baseline  SmallCNN")
    distill(experiment, tmp_path / "job", "kdjax distill")
    assert "warning:" not in capsys.readouterr().err
