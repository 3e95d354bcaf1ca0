"""Runs joined, taught from, learnt in and split, from the command line and in a job."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from kdjax import load
from kdjax.cli import main
from kdjax.data.sources import DataInfo
from kdjax.experiment import UNKNOWN, Student, Teacher
from kdjax.experiment.json import to_json
from kdjax.experiment.objective import Term
from kdjax.experiment.rules import validate
from kdjax.jobs.distill import distill
from kdjax.losses import DML, CrossEntropy, SoftTarget
from kdjax.models import Ensemble, SmallCNN
from kdjax.training.run_directory import RunDirectory
from kdjax.training.state import initial_variables
from kdjax.training.untrained import write_untrained
from tests.jobs import on_two
from tests.support import TINY, tiny_fit, tiny_run
from tests.test_loop import run_it

OTHER = SmallCNN(widths=(6,), hidden=8, mean=(0.2,), std=(0.5,))


@pytest.fixture(scope="module")
def members(data_directory, digits, tmp_path_factory):
    """Two teachers, trained a little."""
    folder = tmp_path_factory.mktemp("members")
    for name, model in (("one", TINY), ("two", OTHER)):
        run = tiny_run(data_directory, model=model, fit=tiny_fit(epochs=8, batch_size=64))
        run_it(run, folder / name, digits)
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def both(members, tmp_path_factory):
    out = tmp_path_factory.mktemp("joined") / "both"
    assert join(*members, out=out) == 0
    return out


def join(*runs, out, flags=()):
    return main(["ensemble", "join", *map(str, runs), "--out", str(out), *flags])


def split(run, member, out):
    return main(["ensemble", "split", str(run), "--member", str(member), "--out", str(out)])


def images_of(digits):
    source = digits.open("test")
    return source.read(np.arange(len(source)))


def untrained(path, info, model=TINY):
    """A finished run of fresh weights, for any data."""
    variables = jax.device_get(initial_variables(model, info.shape, jax.random.key(0)))
    run = tiny_run(path, model=model)
    write_untrained(RunDirectory(path), run, info, variables)
    return path


# --- Together ----------------------------------------------------------------------------------


def test_the_probabilities_are_the_mean_of_the_members(members, both, digits, tmp_path, capsys):
    pixels, labels = images_of(digits)
    mean = np.mean([load(run).probabilities(pixels) for run in members], axis=0)
    np.testing.assert_allclose(load(both).probabilities(pixels), mean, atol=1e-6)
    file = tmp_path / "metrics.json"
    assert main(["evaluate", str(both), "--output", str(file)]) == 0
    assert "both: best checkpoint, step 0" in capsys.readouterr().out
    metrics = json.loads(file.read_text())
    assert metrics["top1"] == np.mean(mean.argmax(axis=-1) == labels)
    nll = -np.log(mean[np.arange(len(labels)), labels]).mean()
    assert metrics["nll"] == pytest.approx(nll, rel=1e-5)


def test_it_remembers_where_its_members_come_from(members, both):
    run = load(both).run
    assert run.model == Ensemble(members=(TINY, OTHER))
    for source, member in zip(run.copied, members, strict=True):
        network = load(member)
        assert source.run == str(member)
        assert (source.step, source.digest) == (network.step, network.digest)


def test_flags_say_how_members_count(members, tmp_path):
    flags = ("--weights", "3", "1", "--weighting", "entropy")
    assert join(*members, out=tmp_path / "run", flags=flags) == 0
    model = load(tmp_path / "run").model
    assert (model.weights, model.weighting) == ((3.0, 1.0), "entropy")


def test_a_student_learns_from_an_ensemble(both, tiny, tmp_path, capsys):
    base = on_two(tiny(epochs=8, batch_size=64))
    student = Student(
        model=TINY.clone(hidden=8),
        fit=base.student.fit,
        losses=(Term(CrossEntropy(), 0.1), Term(SoftTarget(), 0.9)),
    )
    experiment = dataclasses.replace(
        base, teacher=Teacher(run=str(both)), student=student, baseline=False
    )
    summary = distill(experiment, tmp_path / "job", "kdjax distill")
    models = summary["models"]
    assert models["teacher"]["type"] == "Ensemble"
    assert models["student"]["best"]["top1"] > 0.5
    assert models["student"]["best"]["agreement"] > 0.5
    preset = tmp_path / "experiment.json"
    preset.write_text(to_json(experiment))
    capsys.readouterr()
    assert main(["show", str(preset)]) == 0
    assert "Ensemble" in capsys.readouterr().out


def test_an_imported_member_takes_the_data_of_the_others(members, digits, tmp_path):
    names = tuple(map(str, range(10)))
    unknown = DataInfo(name=UNKNOWN, shape=(16, 16, 1), classes=names, sizes={}, fingerprint="")
    alone = untrained(tmp_path / "imported", unknown, TINY.clone(widths=(4,)))
    # Convolutions take any size, and what reads a flattened map does not.
    smaller = dataclasses.replace(unknown, shape=(8, 8, 1))
    fits = untrained(tmp_path / "fits", smaller)
    assert join(fits, members[0], out=tmp_path / "run") == 0
    assert load(tmp_path / "run").info == digits.info
    assert join(alone, fits, out=tmp_path / "none") == 1


# --- Apart -------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [0, 1])
def test_a_member_comes_out_as_it_went_in(member, members, both, digits, tmp_path):
    assert split(both, member, tmp_path / "run") == 0
    alone, before = load(tmp_path / "run"), load(members[member])
    assert alone.digest == before.digest
    assert alone.model == before.model
    assert alone.info == before.info
    (source,) = alone.run.copied
    assert (source.member, source.digest) == (member, load(both).digest)
    assert main(["evaluate", str(tmp_path / "run")]) == 0


def test_networks_that_learned_from_each_other_part(digits, tiny, tmp_path):
    ensemble = Ensemble(members=(TINY, OTHER), sync_batch_norm=False)
    teacher = Teacher(model=ensemble, fit=tiny_fit(epochs=8, batch_size=64), losses=(Term(DML()),))
    experiment = dataclasses.replace(on_two(tiny()), teacher=teacher)
    preset = tmp_path / "experiment.json"
    preset.write_text(to_json(experiment))
    assert main(["train", str(preset), "--workdir", str(tmp_path / "job")]) == 0
    run = tmp_path / "job" / "teacher"
    pixels, labels = images_of(digits)
    together = load(run).outputs(pixels)
    assert split(run, 1, tmp_path / "alone") == 0
    alone = load(tmp_path / "alone")
    assert alone.model == OTHER.clone(sync_batch_norm=False)
    logits = alone.logits(pixels)
    np.testing.assert_allclose(logits, together.features["member1"][:, 0, 0], atol=1e-5)
    assert np.mean(np.argmax(logits, axis=-1) == labels) > 0.5


# --- Errors ------------------------------------------------------------------------------------


def test_runs_of_other_data_are_both_named(members, digits, tmp_path, capsys):
    larger = dataclasses.replace(digits.info, shape=(16, 16, 1))
    letters = dataclasses.replace(digits.info, classes=tuple("abcdefghij"))
    for name, info, message in (
        ("larger", larger, r"take images of 8x8x1 and 16x16x1; join runs of the same data"),
        ("letters", letters, r"know the classes 10 \(0, 1, 2, …\) and 10 \(a, b, c, …\); join"),
    ):
        other = untrained(tmp_path / name, info)
        assert join(members[0], other, out=tmp_path / "run") == 1
        said = capsys.readouterr().err
        assert re.search(f"{members[0]} and {other} {message}", said)
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_joined_or_split_is_named(members, both, tmp_path, capsys):
    out = tmp_path / "run"

    def says(code, message):
        assert code == 1
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) <= 2
        assert not out.exists()

    one, two = members
    says(join(one, out=out), "RUN: 1 given; name two finished runs or more.")
    says(join(one, tmp_path, out=out), f"{tmp_path} is not a run directory")
    three = ("--weights", "1", "2", "3")
    says(join(one, two, out=out, flags=three), "--weights: (1.0, 2.0, 3.0) cannot work; give 2")
    says(split(one, 0, out), f"{one} is a SmallCNN without members; name an Ensemble.")
    says(split(both, 2, out), f"--member: 2 cannot work; {both} has members 0 to 1.")
    unfinished = untrained(tmp_path / "unfinished", load(one).info)
    (unfinished / "result.json").unlink()
    says(join(one, unfinished, out=out), f"{unfinished} is unfinished; run the command that")


def test_nothing_is_overwritten(members, both, capsys):
    before = load(both).digest
    assert join(*members, out=both) == 1
    assert f"--out: {both} is not empty; choose another" in capsys.readouterr().err
    assert split(both, 0, both) == 1
    assert f"--out: {both} is not empty; choose another" in capsys.readouterr().err
    assert load(both).digest == before


@pytest.mark.parametrize("part", ["join", "split"])
def test_each_part_explains_itself(part, capsys):
    with pytest.raises(SystemExit) as end:
        main(["ensemble", part, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"kdjax ensemble {part} runs/" in said
    assert "--out" in said


def test_mutual_learning_of_a_network_alone_says_what_to_do(tiny, tmp_path, capsys):
    teacher = Teacher(model=TINY, fit=tiny_fit(), losses=(Term(DML()),))
    experiment = dataclasses.replace(tiny(), teacher=teacher)
    validate(experiment)
    (tmp_path / "experiment.json").write_text(to_json(experiment))
    command = ["train", str(tmp_path / "experiment.json"), "--workdir", str(tmp_path / "job")]
    assert main(command) == 1
    assert "make the network that is trained an Ensemble" in capsys.readouterr().err
