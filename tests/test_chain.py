"""Networks between teacher and student: each learns from the one before it."""

import dataclasses
import re
from pathlib import Path

import pytest

from kdjax.cli import main
from kdjax.commands.flags import parse_with_preset
from kdjax.commands.tables import comparison
from kdjax.evaluation.load import load
from kdjax.experiment import ASSISTANTS, Cache, Derive, Experiment, Student
from kdjax.experiment.json import from_json, read_json, to_json
from kdjax.experiment.objective import Term
from kdjax.experiment.presets import load_experiment
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import baseline_run, chain, distilled, field_of, roles
from kdjax.jobs.distill import distill
from kdjax.losses import SoftTarget
from kdjax.report.page import build, read_job
from tests.support import TINY, tiny_experiment, tiny_fit

SHAPE = (8, 8, 1)
CHAIN = str(Path(__file__).parent.parent / "configs" / "chain.py")


def assistant(width: float, **fields) -> Student:
    return Student(derive=Derive(width=width, recalibrate=1), fit=tiny_fit(), **fields)


def chained(directory: Path) -> Experiment:
    """A born-again network, then one of three quarters, then a student of half of that."""
    return dataclasses.replace(
        tiny_experiment(directory),
        assistants=(Student(model=TINY, fit=tiny_fit()), assistant(0.75)),
        student=assistant(0.5),
    )


def test_each_is_cut_from_the_one_before_it(tmp_path):
    experiment = chained(tmp_path)
    links = chain(experiment, TINY, SHAPE)
    assert [run.role for run, _ in links] == ["assistant1", "assistant2", "student"]
    assert [run.model.hidden for run, _ in links] == [16, 12, 6]
    assert [teacher.hidden for _, teacher in links] == [16, 16, 12]
    assert [run.inherit is not None for run, _ in links] == [False, True, True]
    longer = dataclasses.replace(experiment.student, fit=tiny_fit(epochs=7))
    alone = baseline_run(dataclasses.replace(experiment, student=longer), TINY, SHAPE)
    assert (alone.model, alone.fit) == (links[-1][0].model, longer.fit)
    assert roles(experiment) == ["teacher", "assistant1", "assistant2", "baseline", "student"]
    assert [field_of(role) for role in distilled(experiment)] == [
        "assistants.0",
        "assistants.1",
        "student",
    ]


def test_kept_answers_are_those_of_the_first_teacher(tmp_path):
    kept = Cache(directory="answers")
    experiment = chained(tmp_path)
    teacher = dataclasses.replace(experiment.teacher, cache=kept)
    links = chain(dataclasses.replace(experiment, teacher=teacher), TINY, SHAPE)
    assert [run.cache for run, _ in links] == [kept, Cache(), Cache()]


def test_a_budget_that_cannot_be_met_is_named_with_its_assistant(tmp_path):
    experiment = chained(tmp_path)
    poor = Student(derive=Derive(params=1e-6))
    experiment = dataclasses.replace(experiment, assistants=(assistant(0.5), poor))
    with pytest.raises(ValueError, match=r"^assistants\.1\.derive\.params: "):
        chain(experiment, TINY, SHAPE)


def test_without_assistants_nothing_changes(tmp_path):
    experiment = tiny_experiment(tmp_path)
    ((run, teacher),) = chain(experiment, TINY, SHAPE)
    assert (run.role, teacher) == ("student", TINY)
    assert roles(dataclasses.replace(experiment, baseline=False)) == ["teacher", "student"]


def test_json_and_back_is_the_same_chain(tmp_path):
    experiment = chained(tmp_path)
    assert from_json(to_json(experiment), Experiment) == experiment


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (assistant(1.5), r"assistants.1.derive.width: 1.5 cannot work"),
        (assistant(0.5, losses=()), r"assistants.1.losses: \(\) cannot work"),
        (
            assistant(0.5, losses=(Term(SoftTarget(temperature=0.0)),)),
            r"assistants.1.losses.0.loss.temperature: 0.0 cannot work",
        ),
        (
            Student(model=TINY, fit=tiny_fit(ema_teacher=True, ema_decay=0.9)),
            r"assistants.1.fit.ema_teacher: True cannot work",
        ),
        (Student(model=TINY.clone(num_classes=1)), r"assistants.1.model.num_classes: 1 cannot"),
        (Student(fit=tiny_fit(epochs=0.0)), r"assistants.1.fit.epochs: 0.0 cannot work"),
    ],
)
def test_assistants_obey_the_rules_of_students(wrong, message, tmp_path):
    experiment = chained(tmp_path)
    validate(experiment)
    with pytest.raises(ValueError, match=message):
        validate(dataclasses.replace(experiment, assistants=(assistant(0.5), wrong)))


def test_there_is_an_end_to_a_chain(tmp_path):
    experiment = chained(tmp_path)
    many = (assistant(1.0),) * len(ASSISTANTS)
    validate(dataclasses.replace(experiment, assistants=many))
    with pytest.raises(ValueError, match="assistants: 10 cannot work; it must be at most 9"):
        validate(dataclasses.replace(experiment, assistants=(*many, assistant(1.0))))


def test_flags_reach_into_the_chain():
    @dataclasses.dataclass(frozen=True)
    class Flags:
        experiment: Experiment

    flags = ["--experiment.assistants.0.fit.epochs", "3"]
    experiment = parse_with_preset(Flags, [CHAIN, *flags], "kdjax show").experiment
    assert experiment.assistants[0].fit.epochs == 3
    preset = load_experiment(CHAIN)
    assert experiment.student == preset.student


@pytest.mark.parametrize(("preset", "shown"), [("digits", False), ("chain", True)])
def test_help_shows_the_assistants_there_are(preset, shown, capsys):
    with pytest.raises(SystemExit):
        main(["distill", CHAIN.replace("chain", preset), "--help"])
    assert ("--assistants.0.derive.width" in capsys.readouterr().out) == shown


def test_show_explains_every_link(data_directory, digits, capsys):
    assert main(["show", CHAIN, "--data.directory", str(data_directory)]) == 0
    out = capsys.readouterr().out
    for pattern in (r"losses of the assistant1", r"losses of the student", r"assistant1 +SmallCNN"):
        assert re.search(pattern, out)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": TINY.clone(num_classes=7)}, "assistants.0.model.num_classes: 7, but digits has"),
        ({"fit": tiny_fit(batch_size=1200)}, "assistants.0.fit.batch_size: 1200 is more than"),
        ({"fit": tiny_fit(batch_size=100)}, "assistants.0.fit.batch_size: 100 does not divide"),
    ],
)
def test_what_cannot_work_is_refused_before_training(fields, message, data_directory, tmp_path):
    experiment = chained(data_directory)
    wrong = dataclasses.replace(experiment.assistants[0], **fields)
    experiment = dataclasses.replace(experiment, assistants=(wrong,))
    with pytest.raises(ValueError, match=message):
        distill(experiment, tmp_path, "kdjax distill")
    assert not (tmp_path / "teacher").exists()


@pytest.fixture(scope="module")
def finished(data_directory, digits, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("chain") / "job"
    summary = distill(chained(data_directory), workdir, "kdjax distill")
    return workdir, summary


def test_a_chain_is_distilled_link_by_link(finished):
    workdir, summary = finished
    names = ["teacher", "assistant1", "assistant2", "baseline", "student"]
    assert list(summary["models"]) == names
    assert summary["seconds"].keys() == {*names, "total"}
    for role, before in (
        ("assistant1", "teacher"),
        ("assistant2", "assistant1"),
        ("student", "assistant2"),
    ):
        run = read_json(workdir / role / "config.json")["run"]
        assert run["role"] == role
        assert run["teacher"]["run"] == f"../{before}"
        assert run["teacher"]["digest"] == load(workdir / before).digest
    parameters = [summary["models"][role]["parameters"] for role in names]
    assert parameters[0] == parameters[1] > parameters[2] > parameters[3] == parameters[4]
    assert summary["models"]["assistant2"]["latest"]["agreement"] > 0
    assert read_json(workdir / "export" / "card.json")["digest"] == load(workdir / "student").digest


def test_a_born_again_network_draws_its_own_weights(finished):
    """The first loss of a network of the same kind is another one."""
    workdir, _ = finished
    first = {role: load(workdir / role, "latest").digest for role in ("teacher", "assistant1")}
    assert first["teacher"] != first["assistant1"]


def test_the_page_and_the_table_show_all_of_them(finished):
    workdir, summary = finished
    page = build([read_job(workdir)])
    for name in ("Assistant 1", "Assistant 2"):
        assert re.search(rf'<th scope="col"><svg class="swatch".*?</svg>{name}</th>', page)
    assert "Assistant 3" not in page
    assert "var(--assistant)" in page
    assert build([read_job(workdir), read_job(workdir)]).count("Triangles: assistants") == 1
    assert [str(cell) for cell in comparison(summary).columns[0].cells][1:3] == [
        "assistant1",
        "assistant2",
    ]


def test_a_finished_link_is_skipped_and_a_missing_one_is_made_again(
    finished, data_directory, capsys
):
    workdir, _ = finished
    before = load(workdir / "student", "latest").digest
    (workdir / "assistant2" / "result.json").unlink()
    (workdir / "student" / "result.json").unlink()
    distill(chained(data_directory), workdir, "kdjax distill")
    said = capsys.readouterr().err
    assert "assistant1 is finished already" in said
    assert "assistant2 goes on from step" in said
    assert load(workdir / "student", "latest").digest == before


def test_another_chain_is_refused_in_the_same_directory(finished, data_directory):
    workdir, _ = finished
    experiment = chained(data_directory)
    other = dataclasses.replace(experiment, assistants=experiment.assistants[:1])
    with pytest.raises(ValueError, match="holds another experiment"):
        distill(other, workdir, "kdjax distill")
