"""What a job made is kept while what it was made from stays the same, in every process alike."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdjax.evaluation.load import load
from kdjax.experiment import Experiment
from kdjax.experiment.json import read_json
from kdjax.jobs import products, stages
from kdjax.jobs.distill import distill, run_all, train
from kdjax.jobs.opening import opened
from kdjax.jobs.products import RECORD, Product, fingerprint_of, kept, kept_by_all
from kdjax.training.loop import Preempted
from kdjax.training.run_directory import write_json
from tests.support import tiny_experiment

RUNS = ("teacher", "baseline", "student")
PRODUCTS = (*(f"{role}/test.json" for role in RUNS), "latency.json", "analysis.json")
PRODUCTS = (*PRODUCTS, "export/card.json")
COMMAND = "kdjax distill"


@pytest.fixture(scope="module")
def teachers(data_directory, digits, tmp_path_factory) -> list[Path]:
    """Two, of other weights."""
    homes = []
    for seed in (0, 1):
        home = tmp_path_factory.mktemp("teacher")
        train(dataclasses.replace(tiny_experiment(data_directory), seed=seed), home)
        homes.append(home / "teacher")
    return homes


def taught_by(data_directory: Path, teacher: Path) -> Experiment:
    experiment = tiny_experiment(data_directory)
    named = dataclasses.replace(experiment.teacher, run=str(teacher))
    return dataclasses.replace(experiment, teacher=named)


@pytest.fixture(scope="module")
def experiment(data_directory, teachers) -> Experiment:
    return taught_by(data_directory, teachers[0])


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("finished") / "job"
    distill(experiment, workdir, COMMAND)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
    """A finished job to do anything to."""
    return shutil.copytree(finished, tmp_path / "job")


@pytest.fixture(scope="module")
def replaced(data_directory, teachers, finished, tmp_path_factory) -> tuple[Path, Path]:
    """The job with another teacher, and one that never had the first."""
    home = tmp_path_factory.mktemp("replaced")
    other = taught_by(data_directory, teachers[1])
    with pytest.raises(ValueError, match=r"holds another experiment .*teacher\.digest"):
        distill(other, shutil.copytree(finished, home / "refused"), COMMAND)
    ours = shutil.copytree(finished, home / "job")
    shutil.rmtree(ours / "student")
    for workdir in (ours, home / "fresh"):
        distill(other, workdir, COMMAND)
    return ours, home / "fresh"


def made_from(path: Path) -> Any:
    return read_json(path)[RECORD]


def without_size(content: dict[str, Any]) -> dict[str, Any]:
    """An exported file names the lines of the program that called for it."""
    return {key: value for key, value in content.items() if key != "bytes"}


def forget(path: Path) -> None:
    """As if it had been made from something else."""
    content = read_json(path)
    key = next(iter(content[RECORD]))
    write_json(path, {**content, RECORD: {**content[RECORD], key: "0" * 64}})


def inodes(workdir: Path) -> dict[str, int]:
    """They change when a file is written anew."""
    return {name: (workdir / name).stat().st_ino for name in PRODUCTS}


@pytest.mark.parametrize("name", PRODUCTS)
def test_with_another_teacher_each_is_that_of_a_new_job(name, replaced, finished):
    ours, fresh, before = (read_json(home / name) for home in (*replaced, finished))
    assert ours[RECORD] == fresh[RECORD] != before[RECORD]
    if name != "latency.json":
        assert without_size(ours) == without_size(fresh)
    summary = read_json(replaced[0] / "summary.json")
    latency = read_json(replaced[0] / "latency.json")
    for role in RUNS:
        tested = read_json(replaced[0] / role / "test.json")
        tested.pop(RECORD)
        assert summary["models"][role] == {**tested, "latency_ms": latency[role]}


@pytest.mark.slow
def test_a_teacher_that_is_trained_again_leaves_nothing_of_the_old_one(
    data_directory, digits, tmp_path
):
    short, longer = (tiny_experiment(data_directory, epochs=n) for n in (0.2, 0.4))
    first, again = (
        dataclasses.replace(e, student=short.student, baseline=False) for e in (short, longer)
    )
    distill(first, tmp_path, COMMAND)
    names = [name for name in PRODUCTS if not name.startswith("baseline")]
    old = {name: made_from(tmp_path / name) for name in names}
    for role in ("teacher", "student"):
        shutil.rmtree(tmp_path / role)
    distill(again, tmp_path, COMMAND)
    assert all(made_from(tmp_path / name) != old[name] for name in names)
    assert read_json(tmp_path / "latency.json")[RECORD]["teacher"] == fingerprint_of(
        load(tmp_path / "teacher")
    )


MAKERS = ("fit", "Evaluate", "latency_ms", "analyse", "export")


def test_what_was_made_from_the_same_is_not_made_again(
    experiment, workdir, finished, monkeypatch, capsys
):
    calls = []
    for maker in MAKERS:
        monkeypatch.setattr(stages, maker, lambda *args, maker=maker, **named: calls.append(maker))
    before = inodes(workdir)
    distill(experiment, workdir, COMMAND)
    assert calls == []
    assert read_json(workdir / "summary.json") == read_json(finished / "summary.json")
    assert inodes(workdir) == before
    said = capsys.readouterr().err
    assert said.count("is finished already") == 2
    assert "tested" not in said
    assert "exported" not in said


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_was_made_from_something_else_is_made_again_and_it_alone(
    name, experiment, workdir, finished
):
    forget(workdir / name)
    before = inodes(workdir)
    distill(experiment, workdir, COMMAND)
    after = inodes(workdir)
    assert {other for other in PRODUCTS if after[other] != before[other]} == {name}
    assert made_from(workdir / name) == made_from(finished / name)


@pytest.mark.parametrize("name", ["student/test.json", "analysis.json", "export/card.json"])
def test_what_was_stopped_in_the_middle_does_not_count(
    name, experiment, workdir, finished, monkeypatch
):
    def stopped(path: Path, value: Any) -> None:
        assert path == workdir / name
        raise KeyboardInterrupt

    forget(workdir / name)
    monkeypatch.setattr(products, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        distill(experiment, workdir, COMMAND)
    monkeypatch.undo()
    assert read_json(workdir / name).get(RECORD) != made_from(finished / name)
    distill(experiment, workdir, COMMAND)
    assert without_size(read_json(workdir / name)) == without_size(read_json(finished / name))


@pytest.mark.parametrize("keep", [kept, lambda *args: kept_by_all(*args, writes=True)])
def test_it_is_made_once_for_each_thing_it_is_made_from(keep, tmp_path):
    made: Iterator[int] = iter(range(9))
    path = tmp_path / "folder" / "product.json"

    def get(**inputs: str) -> int:
        return keep(Product(path, inputs), lambda: {"number": next(made)})["number"]

    assert [get(a="x"), get(a="x"), get(a="y"), get(a="y", b="z"), get(a="x")] == [0, 0, 1, 2, 3]
    path.write_text('{"number": 7}')  # from before there was a record
    assert get(a="x") == 4


def test_who_does_not_write_makes_it_and_leaves_the_file_alone(tmp_path):
    path = tmp_path / "product.json"
    assert kept_by_all(Product(path, {"a": "x"}), lambda: {"n": 1}, writes=False) == {"n": 1}
    assert not path.exists()


def test_a_network_is_its_weights_and_what_is_computed_with_them(teachers):
    one, other = map(load, teachers)
    model = one.model.clone(mean=(0.5,))
    renormalised = dataclasses.replace(one, run=dataclasses.replace(one.run, model=model))
    assert renormalised.digest == one.digest
    assert len({fingerprint_of(network) for network in (one, other, renormalised)}) == 3
    assert fingerprint_of(load(teachers[0])) == fingerprint_of(one)


class Asked:
    """A `stop` that counts, and says yes from one time on."""

    def __init__(self, yes: float = float("inf")) -> None:
        self.times, self.yes = 0, yes

    def __call__(self) -> bool:
        self.times += 1
        return self.times >= self.yes


def go(experiment: Experiment, workdir: Path, stop: Asked, writes: bool) -> int:
    """How often one process of a job asks; those that do not write are not the first."""
    with opened(experiment, workdir) as work:
        job = dataclasses.replace(work.job, stop=stop, writes=writes)
        run_all(dataclasses.replace(work, job=job), COMMAND)
    return stop.times


def test_all_processes_ask_equally_often_whatever_is_there(experiment, workdir):
    everything = go(experiment, workdir, Asked(), True)
    assert go(experiment, workdir, Asked(), False) == everything
    for names in (PRODUCTS[2:4], PRODUCTS):
        for name in names:
            (workdir / name).unlink()
        assert go(experiment, workdir, Asked(), False) == everything
        assert not any((workdir / name).exists() for name in names)
        assert go(experiment, workdir, Asked(), True) == everything


def test_a_request_during_a_stage_of_the_first_stops_all_before_the_next(
    experiment, workdir, monkeypatch
):
    asked = Asked()

    def request(*args: Any) -> dict[str, Any]:
        asked.yes = asked.times + 1
        return {"teacher": {}, "baseline": {}, "student": {}}

    for name in ("latency.json", "export/card.json"):
        (workdir / name).unlink()
    monkeypatch.setattr(stages, "latency_ms", request)
    with pytest.raises(Preempted):
        go(experiment, workdir, asked, True)
    assert (workdir / "latency.json").exists()
    assert not (workdir / "export" / "card.json").exists()
    with pytest.raises(Preempted):
        go(experiment, workdir, other := Asked(asked.yes), False)
    assert other.times == asked.times
