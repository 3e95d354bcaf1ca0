"""What is written comes back bit for bit, or not at all."""

import errno
import os
import pathlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from kdjax.training import checkpoint_folder, checkpoint_writer
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.checkpoint_folder import Damaged, Unreachable
from kdjax.training.checkpoint_writer import CheckpointWriter
from kdjax.training.items import digest, items_of, state_of
from kdjax.training.state import TrainState, pack
from tests.support import data_files, flip, largest_difference

ITEMS = ("student", "ema", "training")


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


def like(state: TrainState):
    """A state of the same structure, whatever the step."""
    return lambda step: state


def save(writer: CheckpointWriter, step: int, top1: float | None = None) -> TrainState:
    state = make_state(step)
    writer.save(state, {"seconds": 1.5}, {} if top1 is None else {"top1": top1})
    writer.wait()
    return state


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below, and every folder as nothing."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }


def files_of(step: Path, part: str) -> list[Path]:
    """The files of an item, or `meta.json`."""
    return data_files(step / part) or [step / part]


@pytest.fixture
def checkpoints(tmp_path):
    opened = CheckpointWriter(tmp_path / "checkpoints", keep_latest=2, keep_best=1)
    yield opened
    opened.close()


def test_everything_comes_back_to_the_bit(checkpoints):
    state = save(checkpoints, 3, 0.5)
    back, problems = checkpoints.restore(like(make_state(0)))
    assert largest_difference(state, back) == 0
    assert back.step.dtype == np.int32
    assert problems == []
    meta = checkpoints.meta(3)
    assert (meta["step"], meta["metrics"], meta["seconds"]) == (3, {"top1": 0.5}, 1.5)


def test_any_structure_comes_back(checkpoints):
    """Tuples and named ones, as optimizers have them, empty arrays, types of half the width."""
    half = np.arange(6).astype("bfloat16").reshape(2, 3)
    state = make_state(1)._replace(
        scales=np.ones(0, np.float32),
        optimizer=({"mu": half}, (), (np.array(2, np.uint8), np.zeros((3, 0)))),
    )
    checkpoints.save(state, {}, {})
    checkpoints.wait()
    back = checkpoints.restore(like(state)).state
    assert largest_difference(state, back) == 0
    assert isinstance(back.optimizer, tuple)
    assert back.optimizer[0]["mu"].dtype == half.dtype
    assert back.optimizer[2][1].shape == (3, 0)


def test_each_part_of_a_state_is_kept_once():
    state = make_state(1)
    items = items_of(state)
    assert tuple(sorted(items)) == tuple(sorted(ITEMS))
    assert digest(items["student"]) == digest(state.variables())
    assert digest(items["ema"]) == digest(state.ema)
    assert largest_difference(state, state_of(items, state, "memory")) == 0
    assert "student" not in items["training"]["params"]


def test_newest_and_best_are_both_kept(checkpoints):
    for step, top1 in [(1, 0.5), (2, 0.9), (3, 0.1), (4, 0.2), (5, 0.3)]:
        save(checkpoints, step, top1)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.find("best") == 2
    assert checkpoints.find("latest") == 5
    assert checkpoints.find("4") == 4
    assert sorted(os.listdir(checkpoints.directory)) == ["2", "4", "5"]


def test_as_many_are_kept_as_were_asked_for(tmp_path):
    writer = CheckpointWriter(tmp_path / "new" / "checkpoints", keep_latest=1, keep_best=2)
    for step, top1 in [(1, 0.5), (2, 0.9), (3, 0.7), (4, 0.2)]:
        save(writer, step, top1)
    assert writer.steps() == [2, 3, 4]
    writer.close()


def test_what_was_not_measured_is_not_kept_as_one_of_the_best(tmp_path):
    writer = CheckpointWriter(tmp_path, keep_latest=1, keep_best=3)
    for step, top1 in [(1, 0.5), (2, None), (3, float("nan")), (4, None)]:
        save(writer, step, top1)
    assert writer.steps() == [1, 4]
    writer.close()


def test_of_equals_the_newest_is_the_best(checkpoints):
    for step in range(1, 5):
        save(checkpoints, step, 0.5)
    assert checkpoints.find("best") == 4
    assert checkpoints.steps() == [3, 4]


def test_a_metric_that_is_not_a_number_is_never_best(checkpoints):
    for step, top1 in [(1, 0.1), (2, float("nan")), (3, float("inf")), (4, None), (5, None)]:
        save(checkpoints, step, top1)
    assert checkpoints.find("best") == 1
    assert checkpoints.steps() == [1, 4, 5]


def test_without_any_metric_the_newest_is_the_best(checkpoints):
    for step in (1, 2):
        save(checkpoints, step)
    assert checkpoints.find("best") == 2


def test_the_network_is_stored_without_its_adapters_and_its_optimizer(checkpoints):
    state = save(checkpoints, 1, 0.5)
    variables = checkpoints.variables(1)
    assert set(variables) == {"params", "batch_stats", "frozen"}
    assert set(variables["params"]) == {"dense"}
    assert digest(variables) == digest(state.variables())


@pytest.mark.parametrize("part", [*ITEMS, "meta.json"])
def test_a_flipped_bit_in_any_file_is_noticed(checkpoints, part):
    save(checkpoints, 2, 0.6)
    state = make_state(0)
    files = files_of(checkpoints.directory / "2", part)
    assert len(files) == 1 or len(files) > 5
    for path in files:
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(Damaged, match=f"2 is damaged: {part}.* changed on disk"):
            checkpoints.restore_step(state, 2)
        path.write_bytes(whole)
    checkpoints.restore_step(state, 2)


def test_any_flipped_bit_of_the_meta_is_noticed(checkpoints):
    save(checkpoints, 2, 0.6)
    path = checkpoints.directory / "2" / "meta.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(Damaged):
            checkpoints.meta(2)
    for other in (b"", b"[]", b"null", b"{}", whole[:-1], whole + b" "):
        path.write_bytes(other)
        with pytest.raises(Damaged):
            checkpoints.meta(2)


@pytest.mark.parametrize("part", [*ITEMS, "meta.json"])
@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, 20)], ids=["bit", "end"])
def test_the_step_before_a_damaged_one_is_used(checkpoints, part, damage):
    older = save(checkpoints, 1, 0.5)
    save(checkpoints, 2, 0.6)
    for path in files_of(checkpoints.directory / "2", part):
        damage(path)
    damaged = contents(checkpoints.directory / "2")
    if part != "training":
        with pytest.raises(Damaged, match="2 is damaged"):
            checkpoints.variables(2, part.removesuffix("meta.json") or "student")
    restored = checkpoints.restore(like(make_state(0)))
    assert largest_difference(restored.state, older) == 0
    (problem,) = restored.problems
    assert "checkpoints/2 is damaged" in str(problem)
    save(checkpoints, 2, 0.6)  # the damaged one is out of the way
    assert int(checkpoints.restore(like(make_state(0))).state.step) == 2
    assert contents(checkpoints.directory / "damaged-2-1") == damaged
    assert checkpoints.steps() == [1, 2]


def test_a_missing_file_is_damage(checkpoints):
    save(checkpoints, 1, 0.5)
    files_of(checkpoints.directory / "1", "training")[0].unlink()
    with pytest.raises(Damaged, match=r"1 is damaged: training/\S+ is missing"):
        checkpoints.restore_step(make_state(0), 1)
    assert digest(checkpoints.variables(1)) == digest(make_state(1).variables())
    shutil.rmtree(checkpoints.directory / "1" / "student")
    with pytest.raises(Damaged, match=r"1 is damaged: student/\S+ is missing"):
        checkpoints.variables(1)


def test_a_reader_passes_over_and_moves_nothing(checkpoints):
    save(checkpoints, 1, 0.5)
    save(checkpoints, 2, 0.6)
    flip(files_of(checkpoints.directory / "2", "training")[0])
    before = contents(checkpoints.directory)
    reader = Checkpoints(checkpoints.directory)
    assert int(reader.restore(like(make_state(0))).state.step) == 1
    assert contents(checkpoints.directory) == before


def test_an_older_one_with_a_damaged_meta_makes_room_too(checkpoints):
    """It cannot be told whether it is the best; a writer must be able to go on without it."""
    save(checkpoints, 1, 0.5)
    save(checkpoints, 2, 0.4)
    flip(checkpoints.directory / "1" / "meta.json")
    with pytest.raises(Damaged, match=r"1 is damaged: meta\.json"):
        checkpoints.find("best")
    restored = checkpoints.restore(like(make_state(0)))
    assert (int(restored.state.step), len(restored.problems)) == (2, 1)
    assert checkpoints.find("best") == 2


def test_damage_in_the_way_of_a_save_is_moved_aside(checkpoints):
    for count in (1, 2):
        save(checkpoints, 2, 0.6)
        flip(files_of(checkpoints.directory / "2", "student")[0])
        save(checkpoints, 2, 0.6)
        assert (checkpoints.directory / f"damaged-2-{count}").is_dir()
        assert int(checkpoints.restore(like(make_state(0))).state.step) == 2
        flip(checkpoints.directory / "2" / "meta.json")


def test_a_whole_checkpoint_is_never_written_over(checkpoints):
    save(checkpoints, 2, 0.6)
    with pytest.raises(ValueError, match=r"checkpoints/2 is a whole checkpoint already"):
        save(checkpoints, 2, 0.7)
    assert checkpoints.meta(2)["metrics"] == {"top1": 0.6}


def test_a_copy_under_a_higher_number_is_no_checkpoint(checkpoints):
    save(checkpoints, 1, 0.9)
    save(checkpoints, 2, 0.6)
    shutil.copytree(checkpoints.directory / "1", checkpoints.directory / "9")
    assert checkpoints.steps() == [1, 2]
    assert (checkpoints.find("latest"), checkpoints.find("best")) == (2, 1)
    restored = checkpoints.restore(like(make_state(0)))
    assert int(restored.state.step) == 2
    (problem,) = restored.problems
    assert "checkpoints/9 is damaged: it is a copy of step 1" in str(problem)
    for step in (3, 4):
        save(checkpoints, step, 0.1)
    assert checkpoints.steps() == [1, 3, 4]
    assert (checkpoints.directory / "9").is_dir()
    save(checkpoints, 9, 0.1)
    assert checkpoints.steps() == [1, 4, 9]
    assert (checkpoints.directory / "damaged-9-1").is_dir()


def test_an_empty_folder_is_no_checkpoint_and_in_nobodys_way(checkpoints):
    (checkpoints.directory / "7").mkdir()
    assert checkpoints.steps() == []
    for step in (1, 2, 3):
        save(checkpoints, step, 0.5)
    shutil.copytree(checkpoints.directory / "3", checkpoints.directory / "8")
    (checkpoints.directory / "8" / "meta.json").unlink()
    assert checkpoints.steps() == [2, 3]
    restored = checkpoints.restore(like(make_state(0)))
    assert int(restored.state.step) == 3
    assert [problem.path.name for problem in restored.problems] == ["8", "7"]
    save(checkpoints, 4, 0.5)
    assert {"3", "4", "7", "8"} == set(os.listdir(checkpoints.directory))
    save(checkpoints, 7, 0.5)
    assert checkpoints.steps() == [4, 7]


def test_other_names_are_no_steps(checkpoints):
    for name in ("03", "x", "-1", "²", "damaged-4-1"):
        (checkpoints.directory / name).mkdir()
    (checkpoints.directory / "5").write_text("a file")
    save(checkpoints, 3, 0.5)
    assert checkpoints.steps() == [3]
    assert Checkpoints(checkpoints.directory / "nowhere").steps() == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("part", [*ITEMS, "meta.json"])
def test_what_cannot_be_read_is_not_taken_for_damaged(checkpoints, part, number, monkeypatch):
    save(checkpoints, 1, 0.5)
    save(checkpoints, 2, 0.6)
    before = contents(checkpoints.directory)
    original, unreadable = pathlib.Path.open, files_of(checkpoints.directory / "2", part)

    def opened(path, *args, **options):
        if path in unreadable:
            raise OSError(number, os.strerror(number), str(path))
        return original(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", opened)
        message = rf"checkpoints/2/{part}.* could not be read \({os.strerror(number)}\); try again"
        with pytest.raises(Unreachable, match=message) as raised:
            checkpoints.restore(like(make_state(0)))
    assert "\n" not in str(raised.value)
    assert contents(checkpoints.directory) == before
    assert int(checkpoints.restore(like(make_state(0))).state.step) == 2


@pytest.mark.parametrize("rest", [" [a='24'] [b='…']", "\nin: a line"])
def test_whole_files_that_orbax_cannot_read_are_not_taken_for_damaged(
    checkpoints, rest, monkeypatch
):
    """It reads them by itself: it may be out of handles or of memory."""
    save(checkpoints, 1, 0.5)

    def fails(folder):
        raise ValueError(f"INTERNAL: Error opening {folder}: Too many open files{rest}")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_folder, "read_arrays", fails)
        with pytest.raises(Unreachable, match=r"could not be read \(Too many open files\); try"):
            checkpoints.restore(like(make_state(0)))
    assert int(checkpoints.restore(like(make_state(0))).state.step) == 1


def test_a_folder_that_cannot_be_listed_is_said_to_be_so(checkpoints, monkeypatch):
    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("kdjax.training.checkpoint.os.listdir", fails)
    with pytest.raises(Unreachable, match=r"checkpoints could not be read \(Input/output error\)"):
        checkpoints.steps()


def test_a_checkpoint_that_is_deleted_meanwhile_is_not_damaged(checkpoints):
    save(checkpoints, 1, 0.5)
    reader = Checkpoints(checkpoints.directory)
    step = reader.find("best")
    for newer in (2, 3):
        save(checkpoints, newer, 0.6)
    with pytest.raises(Unreachable, match=r"No such file or directory.*try again"):
        reader.variables(step)


def test_a_reader_sees_a_checkpoint_when_it_is_whole(checkpoints, monkeypatch):
    save(checkpoints, 1, 0.5)
    reader, written, go_on = (
        Checkpoints(checkpoints.directory),
        threading.Event(),
        threading.Event(),
    )
    original = checkpoint_writer.write_checkpoint

    def pausing(*args):
        original(*args)
        written.set()
        assert go_on.wait(60)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", pausing)
    checkpoints.save(make_state(2), {}, {"top1": 0.6})
    assert written.wait(60)
    assert reader.steps() == [1]
    assert int(reader.restore(like(make_state(0))).state.step) == 1
    go_on.set()
    checkpoints.wait()
    assert reader.steps() == [1, 2]
    assert int(reader.restore(like(make_state(0))).state.step) == 2


def test_what_a_crash_leaves_is_cleared_away_by_the_next_writer_alone(checkpoints, monkeypatch):
    """All but the name is there: the crash comes between the last file and the renaming."""
    save(checkpoints, 1, 0.5)
    left = checkpoints.directory.with_name("left")
    original = os.replace

    def crashing(draft, path):
        if not left.exists():
            shutil.copytree(checkpoints.directory, left)
        original(draft, path)

    monkeypatch.setattr("kdjax.drafts.os.replace", crashing)
    save(checkpoints, 2, 0.6)
    names = sorted(os.listdir(left))
    assert len(names) == 2
    reader = Checkpoints(left)
    assert reader.steps() == [1]
    assert int(reader.restore(like(make_state(0))).state.step) == 1
    assert sorted(os.listdir(left)) == names
    writer = CheckpointWriter(left)
    assert os.listdir(left) == ["1"]
    save(writer, 2, 0.6)
    assert int(writer.restore(like(make_state(0))).state.step) == 2
    writer.close()


def test_all_of_it_is_on_the_disk_before_it_has_its_name(checkpoints, monkeypatch):
    synced, at_renaming = set(), []
    sync, replace = os.fsync, os.replace

    def noted(handle):
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    def moved(draft, path):
        at_renaming.append(set(synced))
        replace(draft, path)

    monkeypatch.setattr("kdjax.drafts.os.fsync", noted)
    monkeypatch.setattr("kdjax.drafts.os.replace", moved)
    save(checkpoints, 1, 0.5)
    step = checkpoints.directory / "1"
    parts = {path.stat().st_ino for path in [step, *step.rglob("*")]}
    assert len(parts) > 20
    assert parts <= at_renaming[0]
    assert checkpoints.directory.stat().st_ino in synced


def full(folder, items):
    (folder / "half").write_text("of it")
    raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")


FULL = r"could not be written \(No space left on device\); "


@pytest.mark.parametrize("ends", ["wait", "close", "save"])
def test_a_full_disk_is_said_in_a_line_that_names_what_is_kept(checkpoints, ends, monkeypatch):
    save(checkpoints, 1, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_folder, "write_arrays", full)
        checkpoints.save(make_state(2), {}, {})
        arguments = (make_state(3), {}, {}) if ends == "save" else ()
        with pytest.raises(OSError, match=FULL + "that of step 1 is the last one") as raised:
            getattr(checkpoints, ends)(*arguments)
    assert "\n" not in str(raised.value)
    assert os.listdir(checkpoints.directory) == ["1"]
    checkpoints.wait()  # it was said


def test_the_first_error_is_the_one_that_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "write_arrays", full)
    writer = CheckpointWriter(tmp_path)

    def diverges():
        try:
            writer.save(make_state(1), {}, {})
            raise ArithmeticError("not finite")
        finally:
            writer.close()

    with pytest.raises(ArithmeticError, match="not finite") as raised:
        diverges()
    assert "there is none yet" in raised.value.__notes__[0]

    def fails():
        writer = CheckpointWriter(tmp_path)
        try:
            writer.save(make_state(1), {}, {})
            writer.wait()
        finally:
            writer.close()

    with pytest.raises(OSError, match=FULL + "there is none yet"):
        fails()


def test_saving_does_not_wait_for_the_disk(checkpoints, monkeypatch):
    go_on = threading.Event()
    original = checkpoint_writer.write_checkpoint

    def slow(*args):
        assert go_on.wait(60)
        original(*args)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", slow)
    checkpoints.save(make_state(1), {}, {})
    assert checkpoints.steps() == []
    go_on.set()
    checkpoints.close()
    assert checkpoints.steps() == [1]


def test_truncated_everywhere_is_an_error_not_a_fresh_start(checkpoints):
    save(checkpoints, 1, 0.5)
    for path in files_of(checkpoints.directory / "1", "student"):
        os.truncate(path, 20)
    with pytest.raises(ValueError, match=r"no readable checkpoint: checkpoint .*1 is.* anew"):
        checkpoints.restore(like(make_state(0)))
    assert checkpoints.steps() == [1]


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
        checkpoints.restore(like(target))


def test_missing_and_unexpected_leaves_are_named(checkpoints):
    save(checkpoints, 1, 0.5)
    target = make_state(0)
    target.params["student"]["extra"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"params.extra is missing"):
        checkpoints.restore(like(target))
    with pytest.raises(ValueError, match=r"holds .*ema.* but this run needs"):
        checkpoints.restore(like(make_state(0, ema=False)))


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
