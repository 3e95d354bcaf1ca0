"""What is written comes back bit for bit, or not at all."""

import re

import numpy as np
import pytest

from kdjax.training.checkpoint import Checkpoints, digest
from kdjax.training.state import TrainState, pack
from tests.support import data_files, flip, largest_difference


def make_state(step: int, fill: float = 0.0, ema: bool = True) -> TrainState:
    rng = np.random.default_rng(step)
    kernel = rng.normal(size=(64, 32)).astype(np.float32) + np.float32(fill)
    params = {"student": {"dense": {"kernel": kernel}}, "adapters": {"fit_net": {"w": kernel[0]}}}
    stats = {"student": {"bn": {"mean": kernel[1]}}, "adapters": {}}
    frozen = {"classifier": {"kernel": kernel[2]}}
    average = pack(params["student"], stats["student"], frozen) if ema else {}
    moments = {"count": np.array(step, np.int32), "mu": kernel * 2}
    scales = np.ones(1, np.float32)
    return TrainState(np.array(step, np.int32), params, stats, frozen, {}, scales, moments, average)


def save(checkpoints: Checkpoints, step: int, top1: float | None = None) -> TrainState:
    state = make_state(step)
    metrics = {} if top1 is None else {"top1": top1}
    checkpoints.save(state, {"step": step, "metrics": metrics}, metrics)
    checkpoints.wait()
    return state


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints", writes=True, keep_latest=2, keep_best=1)
    yield opened
    opened.close()


def test_everything_comes_back_to_the_bit(checkpoints):
    state = save(checkpoints, 3, 0.5)
    back = checkpoints.restore(make_state(0)).state
    assert largest_difference(state, back) == 0
    assert back.step.dtype == np.int32
    assert checkpoints.meta(3)["step"] == 3


def test_newest_and_best_are_both_kept(checkpoints):
    for step, top1 in [(1, 0.5), (2, 0.9), (3, 0.1), (4, 0.2), (5, 0.3)]:
        save(checkpoints, step, top1)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.find("best") == 2
    assert checkpoints.find("latest") == 5
    assert checkpoints.find("4") == 4


def test_a_metric_that_is_not_a_number_is_never_best(checkpoints):
    for step, top1 in [(1, 0.1), (2, float("nan")), (3, float("inf")), (4, None)]:
        save(checkpoints, step, top1)
    assert checkpoints.find("best") == 1


def test_the_network_is_stored_without_its_adapters_and_its_optimizer(checkpoints):
    state = save(checkpoints, 1, 0.5)
    variables = checkpoints.variables(1)
    assert set(variables) == {"params", "batch_stats", "frozen"}
    assert set(variables["params"]) == {"dense"}
    assert digest(variables) == digest(state.variables())


@pytest.mark.parametrize("item", ["student", "ema", "training"])
def test_a_flipped_bit_is_noticed_and_the_step_before_is_used(checkpoints, item):
    older = save(checkpoints, 1, 0.5)
    save(checkpoints, 2, 0.6)
    files = data_files(checkpoints.directory / "2" / item)
    assert files
    for path in files:
        flip(path)
    if item != "training":
        with pytest.raises(ValueError, match=r"2 is (damaged|unreadable)"):
            checkpoints.variables(2, item)
    restored = checkpoints.restore(make_state(0))
    assert largest_difference(restored.state, older) == 0
    (problem,) = restored.problems
    assert re.search(r"2 is (damaged|unreadable)", problem)
    save(checkpoints, 2, 0.6)  # the damaged one is out of the way
    assert int(checkpoints.restore(make_state(0)).state.step) == 2


def test_a_reader_leaves_alone_what_is_being_written(checkpoints):
    save(checkpoints, 1, 0.5)
    unfinished = checkpoints.directory / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    reader = Checkpoints(checkpoints.directory)
    assert unfinished.is_dir()
    save(checkpoints, 3, 0.7)
    assert reader.steps() == [1, 3]
    reader.close()
    writer = Checkpoints(checkpoints.directory, writes=True)
    save(writer, 4, 0.8)
    writer.close()
    assert not unfinished.exists()


def test_truncated_everywhere_is_an_error_not_a_fresh_start(checkpoints):
    save(checkpoints, 1, 0.5)
    for path in data_files(checkpoints.directory / "1"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"no readable checkpoint: checkpoint .*1 is"):
        checkpoints.restore(make_state(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda k: k.astype(np.float16),
            r"params.dense.kernel is float32\[64, 32\], expected float16",
        ),
        (lambda k: k[:, :5], r"expected float32\[64, 5\]"),
    ],
)
def test_another_shape_or_type_names_the_leaf(checkpoints, change, message):
    save(checkpoints, 1, 0.5)
    target = make_state(0)
    target.params["student"]["dense"]["kernel"] = change(
        target.params["student"]["dense"]["kernel"]
    )
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(target)


def test_missing_and_unexpected_leaves_are_named(checkpoints):
    save(checkpoints, 1, 0.5)
    target = make_state(0)
    target.params["student"]["extra"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"params.extra is missing"):
        checkpoints.restore(target)
    with pytest.raises(ValueError, match=r"holds .*ema.* but this run needs"):
        checkpoints.restore(make_state(0, ema=False))


def test_unknown_steps_list_those_there_are(checkpoints):
    with pytest.raises(ValueError, match="holds no checkpoint; train it first"):
        checkpoints.find("best")
    save(checkpoints, 7, 0.5)
    with pytest.raises(ValueError, match=r"checkpoint '9': .* has best, latest, 7"):
        checkpoints.find("9")


def test_a_digest_sees_names_types_shapes_and_values():
    tree = {"a": np.arange(4, dtype=np.float32)}
    others = [
        {"b": tree["a"]},
        {"a": tree["a"].astype(np.int32)},
        {"a": tree["a"].reshape(2, 2)},
        {"a": tree["a"] + 1},
    ]
    assert len({digest(t) for t in [tree, *others]}) == 5
    assert digest(tree) == digest({"a": tree["a"].copy()})
