"""Exact metrics: every example once, equal to NumPy, on any number of devices."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

import kdjax
from kdjax.cli import main
from kdjax.data.sources import Arrays
from kdjax.evaluation.analysis import analyse
from kdjax.evaluation.evaluate import Evaluate
from kdjax.evaluation.load import as_teacher, load
from kdjax.evaluation.metrics import BINS, wilson_interval
from kdjax.evaluation.of_run import evaluate_run
from kdjax.experiment import TeacherReference
from kdjax.experiment.json import read_json, to_dict
from kdjax.training.loop import Teaching
from kdjax.training.parallel import Devices
from kdjax.training.run_directory import write_json
from tests.support import TINY, tiny_fit, tiny_run
from tests.test_loop import run_it


@pytest.fixture(scope="module")
def trained(data_directory, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "teacher"
    run = tiny_run(data_directory, fit=tiny_fit(epochs=3, ema_decay=0.9))
    run_it(run, path, digits)
    return path


@pytest.fixture(scope="module")
def network(trained):
    return load(trained)


def softmax(z):
    e = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def by_hand(logits, labels, teacher=None):
    p = softmax(logits)
    n, answer = len(labels), logits.argmax(-1)
    right = answer == labels
    ranks = (-logits).argsort(axis=-1, kind="stable")[:, :5]
    confidence = p.max(-1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    ece = sum(
        (bins == b).sum() / n * abs(confidence[bins == b].mean() - right[bins == b].mean())
        for b in np.unique(bins)
    )
    result = {
        "count": n,
        "top1": right.mean(),
        "top5": (ranks == labels[:, None]).any(-1).mean(),
        "nll": -np.log(p[np.arange(n), labels]).mean(),
        "ece": ece,
    }
    if teacher is not None:
        t = softmax(teacher)
        result["agreement"] = (answer == teacher.argmax(-1)).mean()
        result["teacher_kl"] = (t * (np.log(t) - np.log(p))).sum(-1).mean()
    return result


SIZES, COUNTS = (1, 7, 64, 131), (1, 3, 8)
SOME = ((64, 1), (7, 3), (1, 8), (131, 8))
"""No padding; some; hardly anything else; and batches of both kinds."""


@pytest.mark.parametrize(
    ("size", "count"),
    [
        *SOME,
        *(
            pytest.param(size, count, marks=pytest.mark.slow)
            for size in SIZES
            for count in COUNTS
            if (size, count) not in SOME
        ),
    ],
)
def test_metrics_equal_numpy_for_any_size_and_any_devices(size, count, network, digits):
    full = digits.open("test")
    # Padding is copies of the first example: one that is answered rightly, or it would not show.
    known = np.asarray(network.logits(full.images)).argmax(axis=-1) == full.labels
    part = slice(known.argmax(), known.argmax() + size)
    source = Arrays(full.images[part], full.labels[part])
    other = network.variables | {"params": {**network.variables["params"]}}
    other["params"]["classifier"] = {
        k: np.roll(v, 1, axis=-1) for k, v in other["params"]["classifier"].items()
    }
    teaching = Teaching(TINY, other)
    evaluate = Evaluate(TINY, source, Devices(count=count), 32, teaching)
    got = evaluate(network.variables)
    logits = np.asarray(network.logits(source.images))
    teacher = np.asarray(TINY.apply(other, jnp.asarray(source.images), train=False).logits)
    expected = by_hand(logits, source.labels, teacher)
    assert got["count"] == size
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=2e-6), name
    assert sum(b["count"] for b in got["calibration"]) == size


def test_wilson_interval_is_that_of_scipy():
    for correct, count in [(0, 10), (7, 10), (10, 10), (354, 360)]:
        expected = binomtest(correct, count).proportion_ci(method="wilson")
        assert wilson_interval(correct / count, count) == pytest.approx(list(expected), abs=1e-6)


def test_a_loaded_network_normalises_and_takes_bytes_or_floats(trained, digits):
    network = kdjax.load(trained, checkpoint="latest")
    images = digits.open("test").images[:9]
    floats = (images / 255).astype(np.float32)
    np.testing.assert_allclose(network.logits(images), network.logits(floats), atol=1e-5)
    assert network.logits(images).shape == (9, 10)
    for bad in (images[0], images[:, :4], images.astype(np.int32)):
        with pytest.raises(ValueError, match=r"images: .*expected"):
            network.logits(bad)


def test_images_may_be_overwritten_once_they_are_handed_over(trained, digits):
    """The call returns before it is done, and JAX may read the very memory it was given later."""
    network, seen = load(trained), []
    forward = network._forward
    vars(network)["_forward"] = lambda *a: (seen.append(a[1]), forward(*a))[1]
    given = digits.open("test").images[:9].copy()
    network.logits(given)
    assert not np.shares_memory(seen[0], given)


def test_raw_and_averaged_weights_and_steps_are_told_apart(trained):
    raw, ema = load(trained, weights="raw"), load(trained, weights="ema")
    assert raw.digest != ema.digest == load(trained).digest
    latest = load(trained, "latest")
    assert latest.step == load(trained, latest.step).step == 28
    with pytest.raises(ValueError, match=r"checkpoint '99': .* has best, latest"):
        load(trained, 99)


def test_evaluating_a_run_repeats_its_training_log(trained):
    metrics = evaluate_run(trained, checkpoint="latest", split="validation")
    log = (trained / "metrics.jsonl").read_text().splitlines()[-1]
    assert f'"top1": {metrics["top1"]}' in log
    assert metrics["weights"] == "ema"


def taught_by(student, teacher, digest):
    config = read_json(student / "config.json")
    reference = TeacherReference(run=str(teacher), step=load(teacher).step, digest=digest)
    config["run"]["teacher"] = {"type": "TeacherReference", **to_dict(reference)}
    write_json(student / "config.json", config)


def test_a_teacher_that_is_another_by_now_is_compared_with_nothing(trained, tmp_path):
    student = shutil.copytree(trained, tmp_path / "student")
    taught_by(student, trained, load(trained).digest)
    assert evaluate_run(student)["agreement"] == 1
    taught_by(student, trained, "another")
    with pytest.raises(ValueError, match="is no longer the teacher"):
        evaluate_run(student)


def test_every_flag_says_what_is_evaluated(trained, tmp_path):
    file = tmp_path / "metrics.json"
    flags = {"checkpoint": "latest", "split": "validation", "weights": "raw"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    assert main(["evaluate", str(trained), *words, "--output", str(file)]) == 0
    assert flags.items() <= read_json(file).items()


def test_no_run_no_checkpoint_and_a_job_are_told_apart(tmp_path, trained):
    with pytest.raises(ValueError, match="is not a run directory"):
        load(tmp_path)
    with pytest.raises(ValueError, match="it is a job with the runs teacher: name one of them"):
        load(trained.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (16, 16, 1)}, "takes images 8x8x1, not 16x16x1"),
        ({"classes": ("a", "b")}, r"other classes: 10 \(0, 1, 2, …\), but .* has 2 \(a, b\)"),
    ],
)
def test_a_teacher_of_other_data_is_refused(change, message, trained, digits):
    import dataclasses

    assert as_teacher(trained, "best", digits.info).step == load(trained).step
    with pytest.raises(ValueError, match=message):
        as_teacher(trained, "best", dataclasses.replace(digits.info, **change))


def test_analysis_counts_every_example(network, digits):
    source = digits.open("test")
    result = analyse(network, network, source)
    assert np.sum(result["confusion"]["student"]) == len(source)
    assert result["confusion"]["student"] == result["confusion"]["teacher"]
    assert np.trace(result["agreement_matrix"]) == len(source)
    assert result["disagreements"] == []
    np.testing.assert_array_equal(
        np.sum(result["confusion"]["student"], axis=1), np.bincount(source.labels)
    )
