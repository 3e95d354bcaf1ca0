"""Networks that kdjax does not know: everything but their code is as for its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdjax.cli import main
from kdjax.evaluation.load import load
from kdjax.experiment import Derive, Experiment, Student, Teacher
from kdjax.experiment.json import from_dict, from_json, to_dict, to_json
from kdjax.experiment.presets import load_experiment, load_preset
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import teacher_run
from kdjax.jobs.checking import check_run
from kdjax.jobs.distill import distill
from kdjax.models import NAMED, Draws, SmallCNN, VisionModel, learn
from kdjax.students.torch_weights import from_torch, to_torch
from kdjax.training.run_directory import RunDirectory, write_json
from kdjax.training.state import initial_variables
from kdjax.types import AXIS, Outputs
from tests.support import largest_difference, tiny_experiment, tiny_fit

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "own_models"
PRESET = FOLDER / "preset.py"
load_preset(PRESET)  # from here on the modules beside it can be imported

from networks import NNXNet, PlainNet  # noqa: E402

SHAPE = (8, 8, 1)
QUICK = ("--teacher.fit.epochs", "1", "--student.fit.epochs", "1", "--baseline", "False")


class InTheTest(VisionModel):
    """For errors; its module can be imported, so that only its fields are wrong."""

    activation: object = nn.relu


def experiment_of(model, student=None):
    return Experiment(name="own", teacher=Teacher(model=model), student=Student(model=student))


def variables_of(model):
    return initial_variables(model, SHAPE, jax.random.key(0))


@pytest.fixture(scope="module")
def job(data_directory, tmp_path_factory):
    """The preset, as a person runs it, a little larger and a lot shorter."""
    path = tmp_path_factory.mktemp("own") / "job"
    own = ("--teacher.model.blocks", "3", "--teacher.model.widths", "8", "12")
    where = ("--data.directory", str(data_directory), "--workdir", str(path))
    assert main(["distill", str(PRESET), *own, *QUICK, *where]) == 0
    return path


# --- A job -------------------------------------------------------------------------------------


def test_a_derived_student_follows_its_teacher(job):
    teacher, student = load(job / "teacher"), load(job / "student")
    assert teacher.model == PlainNet(widths=(8, 12), blocks=3, mean=(0.305,), std=(0.376,))
    assert student.model == teacher.model.clone(widths=(4, 6), blocks=2)
    assert student.run.inherit == Derive(width=0.5, depth=0.5)
    written = json.loads((job / "student" / "config.json").read_text())["run"]["model"]
    assert written["type"] == "networks:PlainNet"
    assert {"report.html", "summary.json", "export"} <= {p.name for p in job.iterdir()}


def test_another_process_loads_evaluates_and_exports(job, tmp_path):
    images = np.arange(2 * 64, dtype=np.uint8).reshape(2, *SHAPE)
    np.save(tmp_path / "images.npy", images)
    program = f"""
import numpy as np, kdjax
from kdjax.cli import main
run = r"{job / "student"}"
logits = kdjax.load(run).logits(np.load("images.npy"))
np.save("logits.npy", logits)
assert main(["evaluate", run, "--output", "metrics.json"]) == 0
assert main(["export", run, "--output", "exported"]) == 0
assert main(["report", r"{job}", "--output", "report.html"]) == 0
"""
    done = in_a_process(["-c", program], tmp_path, FOLDER)
    assert done.returncode == 0, done.stderr
    expected = load(job / "student").logits(images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)
    tested = json.loads((job / "student" / "test.json").read_text())["best"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(tested["top1"])
    assert json.loads((tmp_path / "exported" / "card.json").read_text())["model"] == "PlainNet"


def test_without_its_module_a_run_says_what_to_do(job, tmp_path):
    done = in_a_process(["-m", "kdjax.cli", "evaluate", str(job / "student")], tmp_path)
    assert done.returncode == 1
    assert "'networks:PlainNet' cannot be imported" in done.stderr
    assert "put the folder that holds networks on PYTHONPATH" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def in_a_process(arguments, directory, *folders):
    path = os.pathsep.join(map(str, (ROOT, *folders)))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_an_nnx_network_teaches_and_its_cut_copy_learns(data_directory, tmp_path):
    tiny = tiny_experiment(data_directory, batch_size=256)
    teacher = Teacher(model=NNXNet(width=8), fit=tiny_fit(batch_size=256))
    student = Student(derive=Derive(width=0.5, depth=0.5), fit=tiny_fit(batch_size=256))
    job = Experiment(name="nnx", data=tiny.data, teacher=teacher, student=student, baseline=False)
    assert distill(job, tmp_path, "")
    taught = load(tmp_path / "student")
    assert taught.model == NNXNet(width=4, blocks=1)
    fresh = variables_of(taught.model)
    assert jax.tree.structure(taught.variables) == jax.tree.structure(fresh)
    assert largest_difference(taught.variables["batch_stats"], fresh["batch_stats"]) > 1e-3


# --- The two examples --------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PlainNet(), NNXNet()], ids=["linen", "nnx"])
def test_batch_norm_sees_the_batch_of_all_devices(model):
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), np.uint8)
    variables = variables_of(model)

    def train(model, shards):
        def one(part):
            return model.apply(variables, part, train=True, mutable=["batch_stats"])

        outputs, updated = jax.vmap(one, axis_name=AXIS)(images.reshape(shards, -1, *SHAPE))
        return outputs.logits.reshape(8, -1), jax.tree.map(lambda x: x.mean(0), updated)

    whole = train(model, 1)
    assert largest_difference(train(model, 4), whole) < 1e-4
    assert largest_difference(train(model.clone(sync_batch_norm=False), 4), whole) > 1e-3


@pytest.mark.parametrize("model", [PlainNet(), NNXNet()], ids=["linen", "nnx"])
def test_dropout_is_the_same_on_any_number_of_devices(model):
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), np.uint8)
    variables, names = variables_of(model), jnp.arange(8)

    def logits(rate, shards):
        def one(part, names):
            drawn = Draws(jax.random.key(0), names, jnp.zeros_like(names))
            return learn(model.clone(dropout=rate), variables, part, drawn)[0].logits

        parts = images.reshape(shards, -1, *SHAPE), names.reshape(shards, -1)
        return jax.jit(jax.vmap(one, axis_name=AXIS))(*parts).reshape(8, -1)

    whole = logits(0.5, 1)
    assert largest_difference(logits(0.5, 4), whole) < 1e-4
    assert largest_difference(logits(0.0, 1), whole) > 1e-2


class Lonely(VisionModel):
    """Draws random numbers in ways that are not an example's."""

    kind: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        x = self.pixels(images).mean(axis=(1, 2))
        if train and self.kind == "stream":
            x *= jax.random.bernoulli(self.make_rng("dropout"), shape=x.shape)
        if train and self.kind == "key":
            x *= jax.random.bernoulli(jax.random.key(0), shape=x.shape)
        if self.kind.startswith("nnx"):
            options = {"rng_collection": "params" if self.kind == "nnx of params" else "dropout"}
            drop = nnx.bridge.ToLinen(nnx.Dropout, args=(0.5,), kwargs=options, name="drop")
            x = drop(x, deterministic=not train)
        if self.kind == "axes":
            x = nn.Dropout(0.5, deterministic=not train, name="drop")(x.T).T
        logits = nn.Dense(self.num_classes, name="classifier")(x)
        return Outputs(logits, {}, x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        *((kind, "^Lonely: draws random numbers by itself") for kind in ("stream", "key")),
        ("nnx of params", "^Lonely: draws random numbers by itself"),
        (
            "nnx",
            r"^Lonely: KeyError: .No RngStream named 'dropout' found .* \(test_own_models",
        ),
        ("axes", r"^drop: nn.Dropout of \[1, 2\] cannot draw for each of 2 examples"),
    ],
)
def test_random_numbers_of_no_example_are_refused_before_training(kind, message, digits):
    run = teacher_run(experiment_of(Lonely(kind=kind)))
    with pytest.raises(ValueError, match=message):
        check_run(run, None, digits)


@pytest.mark.parametrize("model", [PlainNet(dropout=0.5), NNXNet(dropout=0.5)])
def test_layers_of_linen_may_drop(model, digits):
    check_run(teacher_run(experiment_of(model)), None, digits)


@pytest.mark.parametrize("model", [PlainNet(), NNXNet()], ids=["linen", "nnx"])
def test_the_precision_is_that_of_the_field(model):
    model = model.clone(dtype="bfloat16")
    variables = variables_of(model)
    outputs = model.apply(variables, jnp.zeros((1, *SHAPE), jnp.uint8))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert outputs.logits.dtype == jnp.float32
    assert outputs.embedding.dtype == jnp.bfloat16


def test_weights_come_from_a_pytorch_file():
    model = PlainNet(widths=(3, 4), blocks=1)
    variables = variables_of(model)
    tensors = to_torch(model, variables, SHAPE)
    assert tensors["layers.1.0.conv.weight"].shape == (3, 1, 3, 3)
    assert {"layers.2.0.bn.running_mean", "head.weight", "head.bias"} <= tensors.keys()
    assert largest_difference(from_torch(model, tensors, SHAPE), variables) == 0


def test_the_page_quotes_the_files():
    page = (ROOT / "docs" / "own-models.md").read_text()
    files = [path.read_text() for path in FOLDER.glob("*.py")]
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        assert any(block in file for file in files), block


# --- Configs and flags -------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PlainNet(widths=(3,), dtype="bfloat16"), NNXNet(blocks=1)])
def test_json_and_back_is_the_same_value(model):
    config = experiment_of(model, student=model.clone(num_classes=7))
    assert from_json(to_json(config), Experiment) == config
    assert hash(from_json(to_json(config), Experiment)) == hash(config)
    assert to_dict(config)["student"]["model"]["type"] == f"networks:{type(model).__name__}"


def test_a_listed_network_goes_by_its_short_name_only():
    values = to_dict(experiment_of(SmallCNN()))
    values["teacher"]["model"]["type"] = "kdjax.models:SmallCNN"
    assert to_dict(from_dict(values, Experiment))["teacher"]["model"]["type"] == "SmallCNN"


def test_fields_are_flags_with_help_and_suggestions(capsys):
    with pytest.raises(SystemExit):
        main(["show", str(PRESET), "--help"])
    out = capsys.readouterr().out
    assert "--teacher.model.blocks" in out
    assert "Convolutions in each stage." in out
    assert "Normalise over the global batch" in out  # a field of VisionModel
    with pytest.raises(SystemExit):
        main(["show", str(PRESET), "--teacher.model.block", "3"])
    assert "--teacher.model.blocks" in capsys.readouterr().err


def test_a_named_student_of_an_own_teacher(capsys, data_directory):
    named = ("--student.model", "tiny_cnn", "--student.model.hidden", "8")
    where = ("--data.directory", str(data_directory))
    assert main(["show", str(PRESET), *named, "--teacher.model.blocks", "1", *where]) == 0
    out = capsys.readouterr().out
    assert '"type": "networks:PlainNet"' in out
    assert '"hidden": 8' in out


def test_only_the_rules_of_every_network_hold_for_an_own_one(monkeypatch):
    class Odd(VisionModel):
        blocks: int = 0
        widths: tuple[int, ...] = ()

    validate(experiment_of(Odd()))
    with pytest.raises(ValueError, match=r"^student.model.num_classes: 1 cannot work"):
        validate(experiment_of(Odd(), student=Odd(num_classes=1)))


# --- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Net", "No module named 'nowhere'); put the folder that holds nowhere on PYTHON"),
        ("nowhere.deep:Net", "put the folder that holds nowhere on PYTHONPATH"),
        ("networks:Nett", f"'networks:Nett': {FOLDER / 'networks.py'} has no Nett; correct"),
        ("networks:", "has no ; correct the name"),
        (":PlainNet", "cannot be imported (ValueError: Empty module name); repair it"),
        ("networks:Trunk", "'networks:Trunk' is no VisionModel; name a class derived from it"),
        ("networks:scaled_size", "'networks:scaled_size' is no VisionModel"),
        ("os:system", "'os:system' is no VisionModel"),
        ("networks:VisionModel", "'networks:VisionModel' is no VisionModel"),
        ("PlainNet", "'PlainNet' is none of SmallCNN, ResNet"),
        ("VisionModel", "nor module:Class of a VisionModel"),
    ],
)
def test_a_type_that_is_none_says_why(name, message):
    values = to_dict(experiment_of(SmallCNN()))
    values["teacher"]["model"] = {"type": name}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(values, Experiment)
    assert str(error.value).endswith("@ Experiment.teacher.model")


def test_a_field_it_does_not_have_is_named():
    values = to_dict(experiment_of(PlainNet()))
    values["teacher"]["model"]["width"] = 3
    message = "unknown field width @ Experiment.teacher.model"
    with pytest.raises(ValueError, match=message):
        from_dict(values, Experiment)


def test_a_module_that_does_not_run_is_no_matter_of_paths(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_networks.py").write_text("import no_such_package\n")
    values = to_dict(experiment_of(SmallCNN()))
    values["teacher"]["model"] = {"type": "broken_networks:Net"}
    with pytest.raises(ValueError, match=r"No module named 'no_such_package'\); repair it"):
        from_dict(values, Experiment)


def test_a_run_directory_runs_no_code_of_its_own(digits, tmp_path):
    (tmp_path / "lying_here.py").write_text("raise SystemExit('this was run')\n")
    run = teacher_run(experiment_of(PlainNet()))
    RunDirectory(tmp_path).create(run, digits.info)
    config = json.loads((tmp_path / "config.json").read_text())
    config["run"]["model"]["type"] = "lying_here:Net"
    write_json(tmp_path / "config.json", config)
    with pytest.raises(ValueError, match="put the folder that holds lying_here on PYTHONPATH"):
        load(tmp_path)
    (tmp_path / "experiment.json").write_text(to_json(experiment_of(SmallCNN())))
    load_experiment(str(tmp_path / "experiment.json"))
    assert str(tmp_path) not in sys.path


def test_the_folder_of_a_preset_comes_once_and_last():
    for _ in range(2):
        load_preset(PRESET)
    assert sys.path.count(str(FOLDER)) == 1
    assert sys.path.index(str(FOLDER)) > sys.path.index(str(Path(nnx.__file__).parents[2]))


def test_a_network_in_the_preset_itself_is_sent_beside_it(tmp_path, capsys):
    text = PRESET.read_text().replace(
        "from networks import PlainNet",
        "from networks import PlainNet as Base\nclass PlainNet(Base):\n    pass\n",
    )
    (tmp_path / "preset.py").write_text(text)
    assert main(["show", str(tmp_path / "preset.py")]) == 1
    err = capsys.readouterr().err
    assert "PlainNet cannot be imported by later commands" in err
    assert "a module of its own, such as one beside the preset" in err
    assert len(err.splitlines()) == 1


def test_a_network_in_a_function_is_refused_too():
    class Local(VisionModel):
        pass

    for model in (Local(), VisionModel()):
        with pytest.raises(ValueError, match="cannot be imported by later commands"):
            to_dict(experiment_of(model))


def test_a_field_that_json_cannot_hold_is_named():
    message = r"^InTheTest.activation: .*custom_jvp.* does not come back from JSON"
    with pytest.raises(ValueError, match=message):
        to_dict(experiment_of(InTheTest()))
    listed = InTheTest(activation=1, mean=[0.5])
    with pytest.raises(ValueError, match=r"^InTheTest.mean: \[0.5\] does not come back"):
        to_dict(experiment_of(listed))


class Numbered(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(1, 10, rngs=rngs)])

    def __call__(self, x):
        return self.layers[0](x.mean(axis=(1, 2)))


class Counting(Numbered):
    def __init__(self, *, rngs: nnx.Rngs):
        self.layers = [nnx.Linear(1, 10, rngs=rngs)][0]
        self.seen = nnx.Cache(jnp.zeros(()))

    def __call__(self, x):
        return self.layers(x.mean(axis=(1, 2)))


class Wrapped(VisionModel):
    kind: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        trunk = {"Numbered": Numbered, "Counting": Counting}[self.kind]
        logits = nnx.bridge.ToLinen(trunk, name="trunk")(self.pixels(images))
        return Outputs(logits, {}, logits)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Counting", "Wrapped: variables in cache would be lost; keep them in params, batch_st"),
        ("Numbered", "Wrapped: ['params']['trunk']['layers'][0]['bias'] cannot be kept; layers"),
    ],
)
def test_variables_that_a_run_could_not_keep_are_refused(kind, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        variables_of(Wrapped(kind=kind))


def test_every_named_network_keeps_its_short_type():
    for model in NAMED.values():
        assert ":" not in to_dict(experiment_of(model))["teacher"]["model"]["type"]
