"""The command line as a person meets it: help, typos, exit codes, one-line errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kdjax.cli import COMMANDS, main
from kdjax.commands.flags import parse_with_preset, with_named_models
from kdjax.commands.preset_flags import ShowFlags
from kdjax.commands.tables import chosen_metrics, comparison
from kdjax.experiment import Experiment
from kdjax.experiment.json import to_json
from kdjax.experiment.presets import experiment_of, load_experiment
from kdjax.experiment.rules import validate

ROOT = Path(__file__).parent.parent
DIGITS = str(ROOT / "configs" / "digits.py")


def test_help_lists_every_command_with_an_example(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert "example:" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert main([name]) == 2
    assert main([name, "--help"]) == 0 if COMMANDS[name].takes_preset else True
    out = capsys.readouterr().out
    assert f"usage: kdjax {name}" in out
    assert COMMANDS[name].example in out


def test_a_preset_shows_every_field_it_has(capsys):
    with pytest.raises(SystemExit) as end:
        main(["distill", DIGITS, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for flag in ("--workdir", "--teacher.model.hidden", "--student.losses.1.loss.temperature"):
        assert flag in out
    assert "parent" not in out  # Flax's own fields stay out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distil"], "unknown command 'distil', did you mean 'distill'"),
        (["distill", "--workdir", "x"], "the preset comes first"),
        (["frobnicate"], "unknown command 'frobnicate'; see kdjax --help"),
    ],
)
def test_wrong_usage_is_two(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "suggestion"),
    [
        (["--student.fit.epoch", "3"], "--student.fit.epochs"),
        (["--teacher.modle.hidden", "3"], "--teacher.model.hidden"),
        (["--seed", "first"], "--seed"),
        (["--runtime.backend", "pmop"], "pmap"),
    ],
)
def test_a_wrong_flag_is_two_with_a_suggestion(flags, suggestion, capsys):
    with pytest.raises(SystemExit) as end:
        main(["show", DIGITS, *flags])
    assert end.value.code == 2
    assert suggestion in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "configs/nothing.py"], r"preset configs/nothing.py does not exist"),
        (["show", DIGITS, "--student.fit.epochs", "-1"], r"student.fit.epochs: -1.* positive"),
        (["show", DIGITS, "--student.model", "resnt20"], r"unknown model 'resnt20'; did you mean"),
        (["evaluate", "/nowhere"], r"/nowhere is not a run directory"),
        (["evaluate", "/nowhere", "--checkpoint", "7"], r"/nowhere is not a run directory"),
        (["export", "/nowhere"], r"/nowhere is not a run directory"),
        (["report", "/nowhere", "--output", "/tmp/x.html"], r"/nowhere"),
    ],
)
def test_an_error_is_a_line_or_two(arguments, message, capsys):
    assert main(arguments) == 1
    err = capsys.readouterr().err.strip()
    assert re.search(message, err)
    assert len(err.splitlines()) <= 2
    assert err.startswith("kdjax: ")


@pytest.mark.parametrize("arguments", [["--help"], ["data", "show", "--help"]])
def test_a_reader_that_has_read_enough_is_no_error(arguments):
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "kdjax.cli", *arguments]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_debug_shows_the_traceback(capsys):
    assert main(["evaluate", "/nowhere", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_model_by_name_keeps_what_the_data_needs():
    preset = load_experiment(DIGITS)
    experiment, rest = with_named_models(
        preset, ["--student.model", "resnet8", "--seed", "3", "--teacher.model", "tiny_cnn"]
    )
    assert rest == ["--seed", "3"]
    assert experiment.student.model.blocks == (1, 1, 1)
    assert experiment.student.model.mean == preset.teacher.model.mean
    assert experiment.teacher.model.hidden == 32
    derived, _ = with_named_models(experiment, ["--student.model", "derive"])
    assert derived.student.model is None


def test_show_trains_nothing_and_says_what_would_happen(data_directory, capsys):
    assert main(["show", DIGITS, "--data.directory", str(data_directory)]) == 0
    out = capsys.readouterr().out
    for piece in ('"temperature": 4.0', "40,442", "3,110", "soft_target", "batch per device"):
        assert piece in out


def test_presets_obey_the_rules():
    for path in sorted((ROOT / "configs").glob("*.py")):
        validate(load_experiment(str(path)))


def test_the_preset_in_the_readme_works():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [b for b in blocks if "def config()" in b]
    namespace: dict = {}
    exec(block, namespace)
    experiment = namespace["config"]()
    assert isinstance(experiment, Experiment)
    validate(experiment)


def test_the_experiment_of_a_job_is_a_preset(tmp_path):
    experiment = load_experiment(DIGITS)
    path = tmp_path / "experiment.json"
    path.write_text(to_json(experiment))
    assert load_experiment(str(path)) == experiment


# --- Presets with arguments of their own -------------------------------------------------------

CELL = """
from typing import Annotated, Literal
from kdjax.experiment import Experiment

PAIRS = ("big-small", "wide-narrow")

def config(
    pair: Annotated[Literal[*PAIRS], "Teacher and student."] = "big-small",
    trial: Annotated[int, "Which repetition."] = 3,
    scale: float = 1.0,
) -> Experiment:
    return Experiment(name=f"{pair}-{scale:g}", seed=trial)
"""


@pytest.fixture
def cell(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text(CELL)
    return str(path)


def test_the_arguments_of_a_preset_come_before_the_overrides(cell):
    defaults, rest, _ = experiment_of(cell, [])
    assert (defaults.name, defaults.seed, rest) == ("big-small-1", 3, [])
    arguments = ["--seed", "9", "--pair=wide-narrow", "--trial", "4", "--scale", "0.5"]
    experiment, rest, _ = experiment_of(cell, arguments)
    assert (experiment.name, experiment.seed) == ("wide-narrow-0.5", 4)
    assert rest == ["--seed", "9"]
    flags = parse_with_preset(ShowFlags, [cell, *arguments], "kdjax show")
    assert (flags.experiment.name, flags.experiment.seed) == ("wide-narrow-0.5", 9)


def test_help_lists_the_arguments_of_a_preset(cell, capsys):
    with pytest.raises(SystemExit) as end:
        main(["show", cell, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for piece in ("--pair", "Teacher and student. (default: big-small)", "big-small, wide-narrow"):
        assert piece in out
    for piece in ("--trial INT", "Which repetition. (default: 3)", "--scale FLOAT", "--data.name"):
        assert piece in out
    with pytest.raises(SystemExit):
        main(["show", DIGITS, "--help"])
    assert "own arguments" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pair", "big-smal"], "--pair: unknown pair 'big-smal'; did you mean big-small?"),
        (["--pair", "zzz"], "--pair: unknown pair 'zzz'; there are big-small, wide-narrow."),
        (["--trial", "1.5"], "--trial: '1.5' is not int."),
    ],
)
def test_a_wrong_argument_of_a_preset_is_answered_with_the_choices(cell, flags, message, capsys):
    assert main(["show", cell, *flags]) == 1
    assert capsys.readouterr().err == f"kdjax: preset {cell}: {message}\n"


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("x: int", "config(x) has no default; give it one."),
        ("x: list = None", "config(x) must be a str, an int, a float or a Literal."),
        ("x=1", "config(x) must be a str, an int, a float or a Literal."),
    ],
)
def test_parameters_that_no_flag_can_set_are_refused(tmp_path, signature, message, capsys):
    path = tmp_path / "odd.py"
    path.write_text(f"def config({signature}):\n    pass\n")
    assert main(["show", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_the_experiment_of_a_job_takes_no_arguments_of_the_preset(cell, tmp_path):
    experiment, _, _ = experiment_of(cell, ["--pair", "wide-narrow"])
    path = tmp_path / "experiment.json"
    path.write_text(to_json(experiment))
    assert experiment_of(str(path), ["--seed", "1"]) == (experiment, ["--seed", "1"], "")


# --- The last word of a job --------------------------------------------------------------------


def model(role, top1):
    evaluation = {"top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.01]}
    better = {**evaluation, "top1": top1 + 0.002}
    values = {"parameters": 1234, "flops": 5e6, "latency_ms": {"1": 0.5}}
    return {role: {**values, "latest": evaluation, "best": better}}


@pytest.mark.parametrize(
    ("rule", "says"), [("last", "last epoch"), ("best", "best epoch on the test set, ours beside")]
)
def test_the_comparison_shows_what_was_published(rule, says, capsys):
    models = model("teacher", 0.75) | model("baseline", 0.72) | model("student", 0.74)
    theirs = {"teacher": 75.61, "baseline": None, "student": 74.92}
    theirs |= {"rule": rule, "source": "A paper"}
    Console(width=120).print(comparison({"models": models, "published": theirs}))
    out = capsys.readouterr().out
    student = next(line.split() for line in out.splitlines() if "student" in line)
    assert student[4:7] == ["74.00%", "74.92%", "74.20%"]  # our last, theirs, our best
    assert "75.61%" in out
    assert "nan" not in out.lower()
    assert "None" not in out
    assert f"published: A paper; {says}" in out
    Console(width=120).print(comparison({"models": models}))
    assert "published" not in capsys.readouterr().out


def test_the_metrics_that_were_chosen_have_a_table(capsys):
    """Of the last checkpoint; nothing where a network has none, and no table where none has."""
    models = model("teacher", 0.75) | model("student", 0.74)
    assert chosen_metrics({"models": models}) is None
    models["student"]["latest"]["metrics"] = {"logit_gap": 1.23456, "spread": 0.5}
    models["student"]["best"]["metrics"] = {"logit_gap": 7.0, "spread": 7.0}
    models["teacher"]["latest"]["metrics"] = {"spread": 0.25}
    Console(width=80).print(chosen_metrics({"models": models}))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    names, gap, spread = (
        next(line for line in lines if word in line) for word in ("student", "gap", "spread")
    )
    assert names.split() == ["teacher", "student"]
    assert gap.split() == ["logit", "gap", "1.2346"]
    assert len(gap) == len(names)  # it is the student's
    assert spread.split() == ["spread", "0.2500", "0.5000"]


def test_show_says_what_was_published(cell, data_directory, capsys):
    text = CELL.replace("import Experiment", "import Experiment, Published").replace(
        "seed=trial",
        "seed=trial, published=Published(student=74.92, rule='last', source='A paper')",
    )
    Path(cell).write_text(text)
    assert main(["show", cell, "--data.directory", str(data_directory)]) == 0
    assert "published: 74.92%, A paper; last epoch" in capsys.readouterr().out
