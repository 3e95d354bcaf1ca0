"""Phases of a fit: what moves, what stands still, and what a border does to a run."""

import dataclasses
import json
from contextlib import closing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.pipeline import TrainingStream
from kdjax.experiment import (
    DOT,
    SGD,
    AdamW,
    Constant,
    Cosine,
    Experiment,
    Group,
    Phase,
    Steps,
    Student,
    Teacher,
)
from kdjax.experiment.json import from_dict, to_dict
from kdjax.experiment.objective import Term
from kdjax.experiment.phases import begins, layers_of, spans
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import baseline_run
from kdjax.losses import AB, FT, CrossEntropy, FitNet, Paraphraser, SoftTarget
from kdjax.models import NAMED, VisionModel, infer
from kdjax.models.summary import abstract_variables
from kdjax.training.beginning import shapes
from kdjax.training.cadence import cadence
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.loop import Preempted, Teaching
from kdjax.training.parallel import Devices, fetch
from kdjax.training.parts import merged, part, paths
from kdjax.training.programs import Programs
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed
from kdjax.types import Outputs
from tests.support import TINY, tiny_fit, tiny_run
from tests.test_loop import Stop, final, metric_lines, run_it
from tests.training import TEACHER, make_run, random_teacher, start, train

LABELS, SOFT = Term(CrossEntropy()), Term(SoftTarget())
PLAIN = SGD(momentum=0.0, weight_decay=0.0)


def moved(before, after) -> set[str]:
    old, new = flat(before), flat(after)
    return {path for path in old if not np.array_equal(old[path], new[path])}


def flat(tree) -> dict[str, np.ndarray]:
    found = jax.tree_util.tree_leaves_with_path(tree)
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in found}


def one_phase(phase: Phase, **fit):
    fields = {"batch_size": 32, "schedule": Constant(peak=0.05), **fit}
    return make_run(losses=(LABELS, Term(FitNet())), fit=tiny_fit(phases=(phase,), **fields))


def steps_of(run, digits, steps=2, layout=("pmap", 1)):
    """The state before, and the one after so many steps."""
    recipe = Recipe.of(run, TEACHER, digits.info.sizes["train"])
    state, *_ = train(run, digits.open("train"), random_teacher(), layout, steps)
    return start(run, recipe), fetch(state)


# --- Paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beginning", "path", "found"),
    [
        ("student", "student/stem/kernel", True),
        ("student/stage1", "student/stage1_block0_conv1/kernel", True),
        ("student/stage1", "student/stage10_block0/kernel", False),
        ("student/stage1_block1", "student/stage1_block12_conv1/kernel", False),
        ("adapters/ft/decoder", "adapters/ft/decoder/conv0/bias", True),
        ("stem", "student/stem/kernel", False),
    ],
)
def test_a_beginning_ends_where_a_word_does(beginning, path, found):
    assert begins(beginning, path) == found


def test_of_groups_the_longest_path_counts():
    broad, narrow = Group(path="student", rate=0.1), Group(path="student/stem", rate=3.0)
    for groups in ((broad, narrow), (narrow, broad)):
        phase = Phase(groups=groups)
        assert phase.factors("student/stem/kernel") is narrow
        assert phase.factors("student/classifier/bias") is broad
        assert phase.factors("adapters/fit_net/w").rate == 1.0


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet8", {"stem/kernel": 4, "stem_bn/scale": 4, "stage1_block0_conv1/kernel": 3,
                     "stage3_block0_shortcut/kernel": 1, "classifier/bias": 0}),
        ("deit_tiny", {"class_token": 13, "position": 13, "stage1_block0_qkv/kernel": 12,
                       "stage4_block2_fc2/bias": 1, "norm/scale": 0, "classifier/kernel": 0}),
        ("deit_tiny_distilled", {"distil_token": 13, "class_token": 13}),
        ("convnext_tiny", {"stem/kernel": 19, "stage2_down/kernel": 15,
                           "stage2_block0_conv/kernel": 15, "head_norm/scale": 0}),
    ],
)  # fmt: skip
def test_layers_are_counted_from_the_head(name, wanted):
    """DeiT's as in timm: thirteen from the tokens to the head, twelve blocks between."""
    size = 32 if name == "resnet8" else 224
    params = abstract_variables(NAMED[name], (size, size, 3))["params"]
    layers = layers_of(paths({"student": params}))
    assert {path: layers[f"student/{path}"] for path in wanted} == wanted
    assert min(layers.values()) == 0


def test_a_network_without_blocks_has_no_layers():
    params = {"student": abstract_variables(TINY, (8, 8, 1))["params"]}
    with pytest.raises(ValueError, match=r"^layer_decay: the student has no layers .* in groups"):
        Phase(layer_decay=0.5).check_paths(paths(params))


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            Phase(train=("student/stage9",)),
            r"^train.0: no path begins with 'student/stage9'",
        ),
        (Phase(freeze=("classifier",)), r"^freeze.0: no path begins with 'classifier'"),
        (Phase(groups=(Group(path="student/dens"),)), r"^groups.0.path: no path begins with"),
        (Phase(freeze=("student", "adapters")), r"^train: .* leaves nothing to train"),
    ],
)
def test_beginnings_are_those_of_paths(phase, message):
    params = {"student": abstract_variables(TINY, (8, 8, 1))["params"], "adapters": {}}
    with pytest.raises(ValueError, match=message):
        phase.check_paths(paths(params))


def test_parts_are_put_together_again():
    tree = {"a": {"b": 1, "c": {}}, "d": {"e": {"f": 2}}}
    some, rest = (
        part(tree, lambda path, of=of: path.startswith("a") == of) for of in (True, False)
    )
    assert paths(some) == ["a/b"]
    assert paths(rest) == ["d/e/f"]
    assert merged(some, rest) == merged(rest, some) == tree


# --- Lengths --------------------------------------------------------------------------------------


def test_no_phases_are_one():
    assert spans((), 3.0) == [(Phase(), 0.0, 3.0)]


def test_tenths_may_add_up():
    for lengths, epochs in (((0.1,) * 3, 0.3), ((0.1,) * 10, 1.0), ((1.1, 2.2), 3.3)):
        assert spans([Phase(epochs=length) for length in lengths], epochs)[-1].end == epochs


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((None, 1.0), r"^phases.0.epochs: only the last phase may be without a length"),
        ((2.0, 2.0), r"^phases.1: it would be epochs 2 to 4, but the fit has 3; make it shorter"),
        ((3.0, None), r"^phases.1: it would be epochs 3 to 3, but the fit has 3"),
        ((1.0, 1.0), r"^phases: they end after 2 of 3 epochs; leave out .* or set epochs to 2"),
    ],
)
def test_phases_are_as_long_as_the_fit(lengths, message):
    with pytest.raises(ValueError, match=message):
        spans([Phase(epochs=length) for length in lengths], 3.0)


def test_a_phase_of_no_step_is_refused():
    run = make_run(fit=tiny_fit(phases=(Phase(epochs=0.01), Phase())))
    with pytest.raises(ValueError, match=r"^student.fit.phases.0.epochs: so few are no step"):
        Recipe.of(run, TEACHER, 1200)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase(epochs=0.0), r"^student.fit.phases.0: it would be epochs 0 to 0"),
        (Phase(layer_decay=0.0), r"^student.fit.phases.0.layer_decay: 0.0 cannot work"),
        (Phase(train=()), r"^student.fit.phases.0.train: \(\) cannot work; .* at least one path"),
        (Phase(groups=(Group(path="student", rate=0.0),)), r"phases.0.groups.0.rate: .* in freeze"),
        (Phase(groups=(Group(path="student", decay=-1.0),)), r"phases.0.groups.0.decay: -1.0"),
        (Phase(schedule=Cosine(peak=-1.0)), r"^student.fit.phases.0.schedule.peak: -1.0"),
        (Phase(optimizer=SGD(momentum=1.0)), r"^student.fit.phases.0.optimizer.momentum: 1.0"),
        (Phase(groups=(Group(path="student"),) * 2), r"phases.0.groups.1.path: 'student' cannot"),
        (Phase(losses=()), r"^student.fit.phases.0.losses: \(\) cannot work; .* at least one term"),
        (Phase(losses=(Term(CrossEntropy(), -1.0),)), r"phases.0.losses.0.weight: -1.0"),
        (Phase(losses=(Term(FT()),)), r"^student.fit.phases: FT reads what Paraphraser trains"),
        (
            Phase(losses=(Term(FT()), Term(Paraphraser()))),
            r"phases: FT reads what Paraphraser",
        ),
    ],
)
def test_rules_of_a_phase(phase, message):
    fit = tiny_fit(phases=(phase,))
    experiment = Experiment(name="x", student=Student(model=TINY, fit=fit))
    with pytest.raises(ValueError, match=message):
        validate(experiment)


def test_an_optimizer_that_splits_is_not_clipped_in_any_phase():
    fit = tiny_fit(clip_norm=1.0, phases=(Phase(optimizer=DOT()),))
    with pytest.raises(ValueError, match=r"^student.fit.clip_norm: DOT takes the gradient apart"):
        validate(Experiment(name="x", student=Student(model=TINY, fit=fit)))


def test_a_teacher_has_phases_too_but_nobody_teaches_it():
    fit = tiny_fit(phases=(Phase(losses=(SOFT,)),))
    with pytest.raises(
        ValueError, match=r"^teacher.fit.phases.0.losses.0: SoftTarget needs a teach"
    ):
        validate(Experiment(name="x", teacher=Teacher(fit=fit)))


def test_phases_are_written_and_read():
    phase = Phase(
        epochs=1.0, losses=(LABELS, SOFT), groups=(Group(path="student"),), optimizer=AdamW(),
        schedule=Steps(epochs=(0.5,)), layer_decay=0.7, freeze=("student/stem",),
    )  # fmt: skip
    experiment = Experiment(name="x", student=Student(fit=tiny_fit(phases=(phase, Phase()))))
    text = json.dumps(to_dict(experiment))
    assert from_dict(json.loads(text), Experiment, "x") == experiment


# --- What moves ----------------------------------------------------------------------------------


def test_what_is_not_trained_keeps_its_bits(digits):
    """Parameters, decay or not, and statistics of batch norm; all else moves."""
    phase = Phase(freeze=("student/conv1", "student/bn1", "adapters/fit_net/bn"))
    fit = {"optimizer": SGD(weight_decay=0.1, decay="all"), "ema_decay": 0.9}
    before, after = steps_of(one_phase(phase, **fit), digits)
    still = {path for path in flat(before.params) if not phase.trains(path)}
    assert any("/bn1/" in path for path in still)
    assert any("adapters" in path for path in still)
    assert moved(before.params, after.params) == flat(before.params).keys() - still
    rests = {path for path in flat(before.stats) if not phase.trains(path)}
    assert len(rests) == 4
    assert moved(before.stats, after.stats) == flat(before.stats).keys() - rests
    assert "params/conv1/kernel" not in moved(before.ema, after.ema)


def test_moments_are_kept_of_what_moves_alone(digits):
    run = one_phase(Phase(train=("student/classifier",)), optimizer=SGD(momentum=0.9))
    before, after = steps_of(run, digits)
    assert moved(before.params, after.params) == {
        "student/classifier/bias", "student/classifier/kernel",
    }  # fmt: skip
    assert sorted(leaf.shape for leaf in jax.tree.leaves(after.optimizer) if leaf.ndim) == [
        (10,), (16, 10),
    ]  # fmt: skip


def test_batch_norm_at_rest_normalises_by_its_running_statistics(digits):
    """The gradient of a classifier over a trunk that stands still is that of the trunk as it
    infers."""
    phase = Phase(losses=(LABELS,), train=("student/classifier",))
    run = make_run(losses=(LABELS,), fit=tiny_fit(batch_size=32, phases=(phase,), optimizer=PLAIN,
                                                  schedule=Constant(peak=1.0)))  # fmt: skip
    before, after = steps_of(run, digits, steps=1)
    batch = TrainingStream(digits.open("train"), 32, run.seed).batch(0, np.arange(32))
    outputs = infer(TINY, before.variables(), jnp.asarray(batch.image))
    embedding = np.asarray(outputs.embedding, float)
    layer, trained = (state.params["student"]["classifier"] for state in (before, after))
    logits = embedding @ layer["kernel"] + layer["bias"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = embedding.T @ (p - np.eye(10)[np.asarray(batch.label)]) / 32
    np.testing.assert_allclose(layer["kernel"] - trained["kernel"], slope, atol=1e-6)


class Counting(VisionModel):
    """Its statistics are in a layer that Flax does not know as batch norm, as NNX networks' are."""

    @nn.compact
    def __call__(self, images, train=False):
        x = self.pixels(images).reshape(images.shape[0], -1)
        seen = self.variable("batch_stats", "seen", jnp.zeros, ())
        if train:
            seen.value += 1.0
        x = nn.Dense(8, name="dense")(x)
        return Outputs(nn.Dense(10, name="classifier")(x), {}, x)


def test_statistics_of_layers_that_are_not_linens_keep_their_bits_too(digits):
    for phase, expected in ((Phase(), 2.0), (Phase(train=("student/classifier",)), 0.0)):
        fit = tiny_fit(batch_size=32, phases=(phase,))
        run = make_run(model=Counting(), losses=(LABELS,), fit=fit)
        state, *_ = train(run, digits.open("train"), random_teacher(), steps=2)
        assert float(fetch(state).stats["student"]["seen"]) == expected


def test_rates_and_decay_of_groups(digits):
    """One step of plain descent: `rate · (gradient + decay · parameter)`."""
    groups = (Group(path="student/conv2", rate=0.5, decay=3.0), Group(path="adapters", rate=2.0))
    plain = SGD(momentum=0.0, weight_decay=0.1, decay="all")
    (start, a), (_, b), (_, c) = (
        steps_of(one_phase(phase, optimizer=optimizer), digits, steps=1)
        for phase, optimizer in ((Phase(), PLAIN), (Phase(), plain), (Phase(groups=groups), plain))
    )
    x, gradient = flat(start.params), {}
    for path in x:
        gradient[path] = (x[path] - flat(a.params)[path]) / 0.05
        np.testing.assert_allclose(
            flat(b.params)[path], x[path] - 0.05 * (gradient[path] + 0.1 * x[path]), atol=1e-6
        )
        rate = 0.5 if "conv2" in path else 2.0 if path.startswith("adapters") else 1.0
        decay = 0.3 if "conv2" in path else 0.1
        expected = x[path] - 0.05 * rate * (gradient[path] + decay * x[path])
        np.testing.assert_allclose(flat(c.params)[path], expected, atol=2e-6)


def test_gradients_of_network_and_adapters_are_clipped_apart(digits):
    """So that a large one of an adapter does not slow the network down."""
    run = one_phase(Phase(), optimizer=PLAIN, clip_norm=1e-3, schedule=Constant(peak=1.0))
    before, after = steps_of(run, digits, steps=1)
    gap = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), before.params, after.params)
    for of in ("student", "adapters"):
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gap[of])))
        assert norm == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("layout", [("pmap", 8), ("shard_map", 2)], ids=str)
def test_the_number_of_devices_changes_nothing_in_a_phase(layout, digits):
    phase = Phase(
        freeze=("student/conv1", "student/bn1"), groups=(Group(path="adapters", rate=0.5),)
    )
    run = one_phase(phase)
    _, one = steps_of(run, digits)
    _, several = steps_of(run, digits, layout=layout)
    for path, leaf in flat(one.params).items():
        np.testing.assert_allclose(flat(several.params)[path], leaf, atol=1e-5, err_msg=path)


# --- Borders -------------------------------------------------------------------------------------


PHASES = (
    Phase(epochs=0.7, losses=(Term(CrossEntropy(), 0.5),), train=("student/classifier",),
          optimizer=SGD(), schedule=Constant(peak=0.1)),
    Phase(freeze=("student/conv1",)),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(data_directory):
    return tiny_run(
        data_directory, fit=tiny_fit(epochs=1.5, optimizer=AdamW(), ema_decay=0.9, phases=PHASES)
    )


@pytest.fixture(scope="module")
def whole(run, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "teacher"
    run_it(run, path, digits)
    return path


@pytest.mark.parametrize("stops", [(3,), (7,), (8,), (2, 5, 3)], ids=str)
def test_stopped_before_at_and_after_a_border_it_ends_with_the_same_bits(
    stops, run, digits, tmp_path, whole
):
    path = tmp_path / "teacher"
    assert Recipe.of(run, None, digits.info.sizes["train"]).stretches[0].stop == 7
    for after in stops:
        with pytest.raises(Preempted):
            run_it(run, path, digits, stop=Stop(after))
    run_it(run, path, digits)
    assert final(path) == final(whole)
    assert final(path, weights="ema") == final(whole, weights="ema")
    assert metric_lines(path) == metric_lines(whole)


def test_a_phase_begins_balanced(run, digits):
    balanced = dataclasses.replace(run, fit=dataclasses.replace(run.fit, balance=5))
    recipe = Recipe.of(balanced, None, digits.info.sizes["train"])
    assert [d.steps.start for d in cadence(recipe, 0, 1) if d.balance] == [0, 5, 7, 10]


def test_steps_started_together_do_not_cross_a_border(run, digits, tmp_path, whole):
    recipe = Recipe.of(run, None, digits.info.sizes["train"])
    due = list(cadence(recipe, 0, 2))
    assert [d.steps.start for d in due if d.opens] == [7]
    assert all(7 not in d.steps or d.steps.start == 7 for d in due)
    path = tmp_path / "teacher"
    run_it(run, path, digits, resident=True, steps_per_dispatch=2)
    ours, theirs = (metric_lines(p)[-1]["nll"] for p in (path, whole))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_each_phase_has_its_own_rate_terms_and_weights(whole, run):
    lines = [line for line in metric_lines(whole) if line["kind"] == "train"]
    first = [line for line in lines if line["step"] <= 7]
    assert all(line["learning_rate"] == pytest.approx(0.1) for line in first)
    assert {line["weights"]["cross_entropy"] for line in first} == {0.5}
    then = next(line for line in lines if line["step"] > 7)
    rate = Cosine(peak=0.05).schedule(1200 / 128, 14)(then["step"] - 1)
    assert then["learning_rate"] == pytest.approx(float(rate), rel=1e-3)
    assert then["weights"]["cross_entropy"] == 1.0


def test_a_border_is_crossed_with_fresh_moments(digits):
    """The first step after it is plain, at the rate of the whole fit: no momentum came along."""
    schedule = Cosine(peak=0.05)
    phases = (Phase(epochs=3 * 32 / 1200, losses=(LABELS,)), Phase(losses=(LABELS,)))
    fit = tiny_fit(batch_size=32, optimizer=SGD(momentum=0.9), schedule=schedule, phases=phases)
    run = make_run(losses=(LABELS,), fit=fit)
    recipe = Recipe.of(run, TEACHER, digits.info.sizes["train"])
    assert recipe.stretches[0].stop == 3
    states = {}
    devices, source = Devices("pmap", 1), digits.open("train")
    stream = TrainingStream(source, 32, run.seed)
    programs = Programs(recipe, devices, 1)
    with closing(programs):
        state = devices.replicate(start(run, recipe))
        for i in range(4):
            batch, phase = devices.split(stream.batch(i, np.arange(32))), programs.of(i)
            if i == 3:
                state = phase.open(state, Fixed(), batch)
            state, metrics = phase.advance(range(i, i + 1))(state, Fixed(), batch)
            states[i + 1] = fetch(state).params
    rate = float(schedule.schedule(recipe.steps_per_epoch, recipe.steps)(3))
    named = dict(zip(recipe.at(3).metric_names(), fetch(metrics).tolist(), strict=True))
    assert named["learning_rate"] == pytest.approx(rate)
    gap = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), states[3], states[4])
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gap)))
    assert norm == pytest.approx(rate * named["gradient_norm"], rel=1e-3)


# --- Methods of two stages -----------------------------------------------------------------------


def staged(*phases, **fields):
    fit = tiny_fit(epochs=1.5, batch_size=128, phases=phases, **fields)
    return make_run(losses=(LABELS, Term(FT(), 200.0)), fit=fit)


FIRST = Phase(epochs=0.5, losses=(Term(Paraphraser()),), train=("adapters/ft/paraphraser",
              "adapters/ft/decoder"), schedule=Constant(peak=0.01))  # fmt: skip
THEN = Phase(freeze=("adapters/ft/paraphraser", "adapters/ft/decoder"))


def test_factor_transfer_trains_the_paraphraser_and_then_the_student(digits, tmp_path):
    """As the authors run it: nothing of the student moves, not even by decay, and then nothing of
    the paraphraser."""
    run = staged(FIRST, THEN, optimizer=SGD(weight_decay=0.1, decay="all"), eval_every=0.5)
    teacher = Teaching(TEACHER, random_teacher())
    path = tmp_path / "student"
    run_it(run, path, digits, teacher=teacher, keep_latest=9)
    checkpoints = Checkpoints(path / "checkpoints")
    recipe = Recipe.of(run, TEACHER, digits.info.sizes["train"])
    states = [
        checkpoints.restore_step(shapes(recipe.at(step - 1), (8, 8, 1)), step)
        for step in checkpoints.steps()
    ]
    fresh = start(run, recipe)
    first, *_, last = states
    assert {path.split("/")[0] for path in moved(first.params, last.params)} == {
        "student",
        "adapters",
    }
    assert not any("paraphraser" in p or "decoder" in p for p in moved(first.params, last.params))
    assert moved(first.params, last.params) >= {
        "student/conv1/kernel",
        "adapters/ft/translator/conv0/kernel",
    }
    assert flat(fresh.params).keys() == flat(first.params).keys()
    lines = [line for line in metric_lines(path) if line["kind"] == "train"]
    assert {frozenset(line["terms"]) for line in lines} == {
        frozenset({"paraphraser"}), frozenset({"cross_entropy", "ft"}),
    }  # fmt: skip


def test_what_no_term_of_a_phase_trains_does_not_even_decay(digits):
    """Neither the adapter of another phase's loss, nor the paraphraser that FT reads."""
    phases = (Phase(epochs=1.0, losses=(LABELS,)), Phase(losses=(LABELS, Term(FitNet()))))
    fit = tiny_fit(batch_size=32, epochs=2.0, phases=phases, optimizer=SGD(weight_decay=0.1))
    before, after = steps_of(make_run(fit=fit), digits)
    assert {path.split("/")[0] for path in moved(before.params, after.params)} == {"student"}
    recipe = Recipe.of(staged(FIRST, Phase()), TEACHER, 1200)
    then = recipe.at(recipe.stretches[1].first).stretch
    assert not then.trains("adapters/ft/paraphraser/conv0/kernel")
    assert then.trains("adapters/ft/translator/conv0/kernel")


def test_losses_that_share_parameters_agree_about_them():
    phases = (dataclasses.replace(FIRST, losses=(Term(Paraphraser(rate=1.0)),)), THEN)
    recipe = Recipe.of(staged(*phases), TEACHER, 1200)
    with pytest.raises(ValueError, match=r"^FT: .* in the loss that it shares its parameters with"):
        start(recipe.run, recipe)


def alone(*phases, model=TINY, reuse=False, epochs=3.0, **fields):
    """The fit of a baseline of these phases."""
    fit = tiny_fit(epochs=epochs, phases=phases, **fields)
    student = Student(model=model, losses=(LABELS, SOFT), fit=fit, reuse_classifier=reuse)
    return baseline_run(Experiment(name="x", student=student), TEACHER, (8, 8, 1)).fit


def test_a_baseline_keeps_all_phases_if_those_with_labels_have_no_rates_of_their_own():
    """Else the end of the fit's schedule would be cut off with the others."""
    prepared = Phase(epochs=1.0, losses=(Term(AB()),))
    found = alone(prepared, Phase(), schedule=Steps(epochs=(2.0,)))
    assert found.epochs == 3.0
    assert found.phases == (Phase(epochs=1.0, train=("student",)), Phase(train=("student",)))


def test_a_baseline_has_no_phase_that_trains_nothing_of_its_network():
    for first in (Phase(epochs=1.0, train=("adapters",)), Phase(epochs=1.0, freeze=("student",))):
        found = alone(first, Phase(schedule=Constant()))
        assert (found.epochs, found.phases) == (
            2.0,
            (Phase(train=("student",), schedule=Constant()),),
        )


def test_a_baseline_of_a_reused_classifier_knows_the_paths_of_its_own_network():
    own = Phase(
        epochs=1.0, train=("student/network", "student/projector_conv1"), schedule=Constant(),
        freeze=("student/network/conv1",), groups=(Group(path="student/projector_bn1"),),
    )  # fmt: skip
    found = alone(own, Phase(schedule=Constant()), reuse=True)
    assert found.phases[0].train == ("student",)
    assert found.phases[0].freeze == ("student/conv1",)
    assert found.phases[0].groups == ()


@pytest.mark.parametrize("prepared", [FIRST, Phase(epochs=0.5, losses=(Term(AB()),))])
def test_the_baseline_has_the_phases_in_which_labels_count(prepared):
    phases = (prepared, dataclasses.replace(THEN, schedule=Steps(epochs=(0.5,))))
    fit = tiny_fit(epochs=1.5, phases=phases)
    student = Student(model=TINY, losses=(LABELS, Term(FT(), 200.0)), fit=fit)
    found = baseline_run(Experiment(name="x", student=student), TEACHER, (8, 8, 1)).fit
    assert found.epochs == 1.0
    assert found.phases == (Phase(train=("student",), schedule=Steps(epochs=(0.5,))),)
