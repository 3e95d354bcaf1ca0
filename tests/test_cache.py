"""A teacher's answers on disk: what is kept, what it is used for, and that it changes little."""

import dataclasses
import typing

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.cache.answers import decode, encode, error_bound, record
from kdjax.cache.filling import Filling
from kdjax.cache.origin import views_needed
from kdjax.cache.reads import reads
from kdjax.cache.store import Part, Store, from_records, to_records
from kdjax.cli import main
from kdjax.data.augment import Flip, Mixup, PadCrop
from kdjax.experiment import Cache, Data
from kdjax.experiment.objective import Term
from kdjax.experiment.rules import validate
from kdjax.jobs import cache as caching
from kdjax.jobs.distill import distill, train
from kdjax.losses import (
    DKD,
    PKT,
    RKD,
    SRRL,
    AttentionTransfer,
    CrossEntropy,
    FitNet,
    Loss,
    SoftTarget,
)
from kdjax.types import Outputs
from tests.jobs import learned, on_two
from tests.support import TINY, largest_difference
from tests.training import TEACHER

LABELS = Term(CrossEntropy(), 0.1)


def softmax(z: np.ndarray) -> np.ndarray:
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


def outputs(logits: np.ndarray) -> Outputs:
    embedding = np.linspace(-1, 1, 3 * len(logits)).reshape(-1, 3)
    return Outputs(jnp.asarray(logits, jnp.float32), {}, jnp.asarray(embedding, jnp.float32))


def kept(cache: Cache, logits: np.ndarray) -> tuple[np.ndarray, Outputs]:
    """On disk and back."""
    said = outputs(logits)
    answers = {name: np.asarray(x) for name, x in encode(cache, said).items()}
    records = to_records(answers, record(cache, logits.shape[1], 3))
    answers = {name: jnp.asarray(x) for name, x in from_records(records).items()}
    return records, decode(cache, answers, logits.shape[1])


# --- What is kept --------------------------------------------------------------------------------


def test_dense_answers_are_rounded_to_float16():
    logits = np.random.default_rng(0).normal(0, 5, (7, 10))
    records, back = kept(Cache(embedding=True), logits)
    np.testing.assert_array_equal(back.logits, logits.astype(np.float32).astype(np.float16))
    np.testing.assert_allclose(back.embedding, outputs(logits).embedding, atol=5e-4)
    assert records.dtype.itemsize == 2 * (10 + 3)


def test_top_k_keeps_the_mass_of_the_largest_and_of_the_rest():
    logits = np.random.default_rng(0).normal(0, 2, (7, 10))
    records, back = kept(Cache(top_k=3), logits)
    assert records.dtype.itemsize == 3 * (2 + 2) + 4
    ours, theirs = softmax(np.asarray(back.logits, np.float64)), softmax(logits)
    best = np.argsort(-logits, axis=1)[:, :3]
    np.testing.assert_allclose(
        np.take_along_axis(ours, best, 1), np.take_along_axis(theirs, best, 1), rtol=5e-3
    )
    others = np.sort(ours, axis=1)[:, :7]
    np.testing.assert_allclose(others, np.repeat(others[:, :1], 7, axis=1), rtol=1e-5)


@pytest.mark.parametrize("count", [2**16, 2**16 + 1])
def test_every_class_is_told_from_every_other_however_many_there_are(count):
    """Numbers of sixteen bits begin again at the 65,537th."""
    logits = np.full((2, count), -3.0, np.float32)
    logits[0, -1], logits[1, 0] = 5.0, 6.0
    records, back = kept(Cache(top_k=1), logits)
    np.testing.assert_array_equal(records["classes"][:, 0], [count - 1, 0])
    np.testing.assert_allclose(back.logits, logits, rtol=1e-4)
    assert records.dtype.itemsize == (2 + 2 if count == 2**16 else 2 + 4) + 4


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.floats(0.1, 20), st.integers(1, 9), st.sampled_from([1.0, 2.0, 7.5])
)
def test_the_bound_of_a_top_k_answer_holds(seed, spread, k, temperature):
    logits = np.random.default_rng(seed).normal(0, spread, (5, 10)).astype(np.float16)
    records, back = kept(Cache(top_k=k), logits.astype(np.float64))  # no rounding of the k
    ours = softmax(np.asarray(back.logits, np.float64) / temperature)
    theirs = softmax(logits.astype(np.float64) / temperature)
    variation = np.abs(ours - theirs).sum(axis=1) / 2
    assert (variation <= error_bound(records, 10, temperature) + 1e-5).all()


def test_the_bound_is_no_wider_than_the_rest():
    """Where all others are alike, nothing is lost, and the bound is the mass of the rest."""
    logits = np.array([[3.0, 1.0, 0.0, 0.0, 0.0]])
    records, _ = kept(Cache(top_k=2), logits)
    np.testing.assert_allclose(
        error_bound(records, 5, 1.0), softmax(logits)[:, 2:].sum(), rtol=1e-3
    )


# --- What losses read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "fields"),
    [
        (SoftTarget(), {"logits"}),
        (DKD(), {"logits"}),
        (PKT(), {"embedding"}),
        (SRRL(), {"logits", "embedding", "classifier"}),
        (AttentionTransfer(), {"features"}),
        (CrossEntropy(), set()),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
)
def test_what_a_loss_reads_is_seen_from_its_trace(loss, fields):
    assert reads(loss, TINY, TEACHER, (8, 8, 1)) == fields


LOGITS_ALONE = {
    *("SoftTarget", "DKD", "LogitMSE", "DIST", "WSLD", "MLKD", "CTKD"),
    *("TTM", "RLD", "ABKD"),
}


def test_most_losses_of_logits_can_do_with_kept_answers():
    """None of them is thought to read more than it does: then it could not be cached."""
    names = {
        kind.__name__
        for kind in typing.get_args(Loss)[:-1]
        if kind.__name__ in LOGITS_ALONE and reads(kind(), TINY, TEACHER, (8, 8, 1)) == {"logits"}
    }
    assert names == LOGITS_ALONE


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            FitNet(),
            r"student.losses.1: FitNet reads the teacher's feature maps, .* leave out",
        ),
        (RKD(), r"student.losses.1: RKD reads the teacher's embedding, .* set teacher.cache.embed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_loss_that_reads_more_is_refused_before_training(loss, message, job, tmp_path):
    student = dataclasses.replace(job.student, losses=(LABELS, Term(loss)))
    wants = dataclasses.replace(with_cache(job, tmp_path / "cache"), student=student)
    with pytest.raises(ValueError, match=message):
        distill(wants, tmp_path / "job", "")
    assert not (tmp_path / "cache").exists()


# --- Runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(data_directory, tmp_path_factory):
    from tests.support import tiny_experiment

    path = tmp_path_factory.mktemp("teacher")
    train(tiny_experiment(data_directory), path)
    return path / "teacher"


@pytest.fixture
def job(tiny, teacher):
    experiment = on_two(tiny(epochs=3))
    return dataclasses.replace(
        experiment,
        baseline=False,
        data=dataclasses.replace(experiment.data, augment=(PadCrop(padding=1), Flip())),
        teacher=dataclasses.replace(experiment.teacher, run=str(teacher)),
    )


def with_cache(job, directory, **fields):
    cache = Cache(directory=str(directory), **fields)
    return dataclasses.replace(job, teacher=dataclasses.replace(job.teacher, cache=cache))


def with_data(job, **fields):
    return dataclasses.replace(job, data=dataclasses.replace(job.data, **fields))


@pytest.mark.parametrize("mixed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cached_run_is_the_online_run_to_float16(mixed, job, tmp_path, monkeypatch):
    if mixed:  # the images of the student, and so the teacher's answers
        job = with_data(job, augment=(Flip(), Mixup()), teacher_augment=(PadCrop(padding=1),))
    online = learned(job, tmp_path / "online")
    wants = with_cache(job, tmp_path / "cache")
    facts = caching.build(wants, tmp_path)
    assert facts["views"] == 3

    def asked(*arguments):
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr("kdjax.training.answers.KeptTeacher._fill", asked)
    cached = learned(wants, tmp_path / "cached")
    assert 0 < largest_difference(cached, online) < 2e-3


def test_a_run_builds_its_cache_on_the_side(job, tmp_path):
    wants = with_data(with_cache(job, tmp_path / "cache", top_k=3), cycle=2)
    first = learned(wants, tmp_path / "first")
    store = Store(tmp_path / "cache")
    assert [part for part, _ in store.files()] == [Part(0, 0), Part(1, 0)]
    again = learned(wants, tmp_path / "again")
    assert largest_difference(first, again) < 1e-5
    caching.build(with_cache(wants, tmp_path / "ahead", top_k=3), tmp_path)
    ahead = Store(tmp_path / "ahead")
    for part, _ in store.files():
        ours, theirs = (from_records(s.load(part)) for s in (store, ahead))
        np.testing.assert_allclose(ours["values"], theirs["values"], atol=2e-2)


def test_a_cached_run_resumes_to_the_same_bits(job, tmp_path, monkeypatch):
    from kdjax.training import loop

    wants = with_cache(job, tmp_path / "cache")
    caching.build(wants, tmp_path)
    whole = learned(wants, tmp_path / "whole")
    polls = iter([False] * 12 + [True])
    monkeypatch.setattr("kdjax.training.preemption.Preemption.poll", lambda self: next(polls))
    with pytest.raises(loop.Preempted):
        distill(wants, tmp_path / "stopped", "")
    monkeypatch.undo()
    assert largest_difference(learned(wants, tmp_path / "stopped"), whole) == 0


def test_what_a_run_was_told_before_it_crashed_is_not_lost(job, tmp_path, monkeypatch):
    """Within the second epoch of some nine steps, at a checkpoint that it goes on from."""
    from kdjax.training import loop

    wants = with_data(with_cache(job, tmp_path / "cache"), cycle=2)
    fit = dataclasses.replace(job.student.fit, eval_every=13 / 9.35)
    wants = dataclasses.replace(wants, student=dataclasses.replace(wants.student, fit=fit))
    saved = []

    def poll(self):
        if saved:
            raise OSError("gone")
        return False

    with monkeypatch.context() as patch:
        save = loop.Keeper.save
        patch.setattr(loop.Keeper, "save", lambda *a: (save(*a), saved.append(a[2])))
        patch.setattr("kdjax.training.preemption.Preemption.poll", poll)
        with pytest.raises(OSError, match="gone"):
            distill(wants, tmp_path / "job", "")
    assert saved == [13]
    learned(wants, tmp_path / "job")
    store = Store(tmp_path / "cache")
    assert [part for part, _ in store.files()] == store.parts(2)
    assert len(list(store.directory.rglob("*.npy"))) == 2  # and no other file


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda job: dataclasses.replace(job, seed=1), "seed: 0 → 1"),
        (lambda job: with_data(job, augment=(PadCrop(padding=2), Flip())), "augment.0.padding"),
        (lambda job: with_data(job, teacher_augment=job.data.augment), "stream"),
        (lambda job: with_data(job, train="train[:50%]"), "data.sizes.train"),
    ],
    ids=["seed", "augment", "own views", "data"],
)
def test_answers_to_other_questions_are_refused(change, field, job, tmp_path):
    wants = with_cache(job, tmp_path / "cache")
    caching.build(wants, tmp_path)
    with pytest.raises(ValueError, match=rf"teacher.cache.directory: .* other answers .*{field}"):
        distill(change(wants), tmp_path / "job", "")


def test_answers_of_another_teacher_or_kind_are_refused(job, tmp_path, data_directory):
    from tests.support import tiny_experiment

    caching.build(with_cache(job, tmp_path / "cache"), tmp_path)
    with pytest.raises(ValueError, match=r"holds other answers .*top_k: None → 3"):
        distill(with_cache(job, tmp_path / "cache", top_k=3), tmp_path / "a", "")
    train(dataclasses.replace(tiny_experiment(data_directory), seed=5), tmp_path / "five")
    other = dataclasses.replace(job.teacher, run=str(tmp_path / "five" / "teacher"))
    with pytest.raises(ValueError, match=r"holds other answers .*teacher: "):
        distill(
            with_cache(dataclasses.replace(job, teacher=other), tmp_path / "cache"),
            tmp_path / "b",
            "",
        )


def test_without_random_views_the_seed_does_not_matter_and_one_view_is_kept(job, tmp_path):
    wants = with_cache(with_data(job, augment=()), tmp_path / "cache")
    assert caching.build(wants, tmp_path)["views"] == 1
    other = dataclasses.replace(wants, seed=1)
    assert caching.build(other, tmp_path)["views"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job: with_data(job, augment=(Mixup(),)), "what the teacher says of a mixture"),
        (lambda job: with_cache(job, "somewhere", top_k=0), "teacher.cache.top_k: 0 cannot work"),
    ],
    ids=["mixed", "none"],
)
def test_what_cannot_be_kept_is_refused(change, message, job):
    with pytest.raises(ValueError, match=message):
        validate(change(with_cache(job, "somewhere")))


def test_more_than_there_are_cannot_be_kept(job, tmp_path):
    with pytest.raises(ValueError, match=r"teacher.cache.top_k: 10, but the teacher knows 10"):
        distill(with_cache(job, tmp_path / "cache", top_k=10), tmp_path / "job", "")


@pytest.mark.parametrize(("cycle", "views"), [(None, 6), (4, 4), (9, 6)])
def test_a_view_is_kept_once_however_often_it_comes_back(cycle, views):
    data = Data(views=2, cycle=cycle)
    assert views_needed(data, 3, (Flip(),)) == views
    assert views_needed(data, 3, ()) == 1


# --- On disk -------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_and_mended(job, tmp_path):
    wants = with_cache(job, tmp_path / "cache")
    caching.build(wants, tmp_path)
    store = Store(tmp_path / "cache")
    path = store.find(Part(1, 0))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for use in (caching.verify, lambda _: distill(wants, tmp_path / "job", "")):
        with pytest.raises(ValueError, match=rf"{path} is damaged; delete it"):
            use(tmp_path / "cache")
    path.unlink()
    caching.build(wants, tmp_path)
    assert path.read_bytes() == good
    facts = caching.verify(tmp_path / "cache")
    assert facts["asked again"] == caching.SAMPLE
    assert facts["largest difference"] < caching.TOLERANCE


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], r"cache\.json is not readable JSON"),
        (lambda text: text.replace('"examples"', '"images"'), r"cache\.json: .*examples"),
    ],
)
def test_a_cache_that_cannot_be_read_says_what_to_do(damage, message, job, tmp_path):
    caching.build(with_cache(job, tmp_path / "cache"), tmp_path)
    path = tmp_path / "cache" / "cache.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message + r".*\n.* build the cache anew"):
        Store(tmp_path / "cache")


def test_answers_that_float16_cannot_hold_are_not_written(job, tmp_path):
    caching.build(with_cache(job, tmp_path / "cache"), tmp_path)
    store = Store(tmp_path / "cache")
    records = np.array(store.load(Part(1, 0)))
    records["logits"][3, 1] = np.inf
    with pytest.raises(ValueError, match=r"logits are not finite, or too large for float16"):
        store.write(Part(7, 0), records)
    assert store.find(Part(7, 0)) is None


def test_answers_that_the_teacher_never_gave_are_noticed(job, tmp_path):
    wants = with_cache(job, tmp_path / "cache")
    caching.build(wants, tmp_path)
    store = Store(tmp_path / "cache")
    wrong = np.array(store.load(Part(0, 0)))
    wrong["logits"] *= 1.1
    store.find(Part(0, 0)).unlink()
    store.write(Part(0, 0), wrong)
    with pytest.raises(ValueError, match="answers differ from the teacher's by"):
        caching.verify(tmp_path / "cache")


def test_a_stopped_build_leaves_nothing_that_counts(job, tmp_path, monkeypatch):
    wants, cache = with_cache(job, tmp_path / "cache"), tmp_path / "cache"

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdjax.drafts.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        caching.build(wants, tmp_path)
    monkeypatch.undo()
    assert list(cache.rglob("*")) == []
    caching.build(wants, tmp_path)
    store = Store(cache)
    store.find(Part(2, 0)).unlink()
    monkeypatch.setattr("kdjax.drafts.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        caching.build(wants, tmp_path)
    monkeypatch.undo()
    assert store.find(Part(2, 0)) is None
    assert list(cache.rglob("*.tmp")) == []


def test_what_one_process_wrote_is_not_taken_from_the_share_of_the_next(job, tmp_path):
    caching.build(with_cache(job, tmp_path / "cache"), tmp_path)
    store = Store(tmp_path / "cache")
    kept = {part: np.array(store.load(part)) for part in store.parts(3)}
    for part in kept:
        store.find(part).unlink()
    for process in (0, 1):  # the second looks when the first is done
        for part in caching.missing_parts(store, 3, process, 2):
            store.write(part, kept[part])
    assert [part for part, _ in store.files()] == store.parts(3)


def test_a_directory_of_something_else_is_not_written_to(job, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.tex").write_text("dear")
    with pytest.raises(ValueError, match=r"teacher.cache.directory: .* exists and is no cache"):
        caching.build(with_cache(job, tmp_path / "cache"), tmp_path)


def test_a_teacher_that_was_not_trained_is_missed_before_anything_is_made(job, tmp_path):
    alone = dataclasses.replace(job, teacher=dataclasses.replace(job.teacher, run=None))
    with pytest.raises(ValueError, match=r"teacher holds no teacher; train it with `kdjax train"):
        caching.build(with_cache(alone, tmp_path / "cache"), tmp_path / "job")
    assert not (tmp_path / "cache").exists()


def small_parts(job, tmp_path, monkeypatch):
    """A built cache of some files a view, and the beginning of another one."""
    monkeypatch.setattr("kdjax.cache.store.PART_BYTES", 20 * 500)
    caching.build(with_cache(job, tmp_path / "cache"), tmp_path)
    built = Store(tmp_path / "cache")
    assert [len(built.examples(part)) for part in built.parts(1)] == [500, 500, 197]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cache.json").write_text((tmp_path / "cache" / "cache.json").read_text())
    return built, Store(tmp_path / "other")


def told(filling, built, index, view=1):
    view = np.full(len(index), view)
    filling.add(view, index, built.read(view, index))


def same_files(other, built, view=1):
    names = [path.name for _, path in built.files() if path.parent.name == f"view-{view:05d}"]
    assert sorted(path.name for path in other.directory.rglob("*.npy")) == sorted(names)


ORDER = np.random.default_rng(0).permutation(1197)


def test_parts_are_written_when_they_are_whole_whatever_the_order(job, tmp_path, monkeypatch):
    built, other = small_parts(job, tmp_path, monkeypatch)
    filling = Filling(other)
    for index in (ORDER[:600], ORDER[300:900], ORDER[900:]):
        told(filling, built, index)
    same_files(other, built)


def test_pieces_of_parts_are_put_together_by_whoever_goes_on(job, tmp_path, monkeypatch):
    """Memory holds no more than it may, and of what is saved nothing is asked for again."""
    built, other = small_parts(job, tmp_path, monkeypatch)
    most = 24 * 500
    monkeypatch.setattr("kdjax.cache.filling.HELD_BYTES", most)
    for batches in (ORDER[:700].reshape(-1, 100), ORDER[700:1100].reshape(-1, 100)):
        filling = Filling(other)
        for index in batches:
            told(filling, built, index)
            assert filling.held_bytes < most
        filling.save()
        assert filling.held_bytes == 0
    assert list(other.files()) == []
    told(Filling(other), built, ORDER[1100:])
    same_files(other, built)


def test_two_that_fill_one_cache_leave_it_whole(job, tmp_path, monkeypatch):
    """Each may be told what the other wrote already, and find its own pieces gone."""
    built, other = small_parts(job, tmp_path, monkeypatch)
    one, two = Filling(other), Filling(other)
    told(one, built, ORDER[:600])
    one.save()
    told(two, built, ORDER[600:700])
    two.save()
    told(two, built, ORDER[:600])
    told(two, built, ORDER[700:])  # writes the parts, and deletes what the first one saved
    told(one, built, ORDER[600:1000])
    one.save()
    told(one, built, ORDER[1000:])
    assert one.held_bytes == two.held_bytes == 0
    same_files(other, built)


def test_a_part_is_not_written_before_it_is_whole_though_its_pieces_are_gone(
    job, tmp_path, monkeypatch
):
    built, other = small_parts(job, tmp_path, monkeypatch)
    filling = Filling(other)
    told(filling, built, ORDER[:600])
    filling.save()
    for path in other.directory.rglob("piece-*.npy"):
        path.unlink()
    told(filling, built, ORDER[600:])
    assert list(other.files()) == []
    told(filling, built, ORDER[:600])
    same_files(other, built)


def test_a_build_takes_the_pieces_of_a_run_away(job, tmp_path, monkeypatch):
    built, other = small_parts(job, tmp_path, monkeypatch)
    filling = Filling(other)
    told(filling, built, ORDER[:600])
    filling.save()
    caching.build(with_cache(job, tmp_path / "other"), tmp_path)
    names = [sorted(p.name for p in s.directory.rglob("*.npy")) for s in (built, other)]
    assert names[0] == names[1]


def test_the_command_line_builds_verifies_and_inspects(teacher, data_directory, tmp_path, capsys):
    preset = "configs/digits.py"
    flags = f"--teacher.run {teacher} --data.directory {data_directory} --student.fit.epochs 1"
    where = str(tmp_path / "cache")
    cache = f"--teacher.cache.directory {where} --teacher.cache.top_k 2 --student.derive.width 1.0"
    assert main(["cache", "build", preset, *flags.split(), *cache.split()]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert main(["cache", "verify", where]) == 0
    out = capsys.readouterr().out
    assert "asked again" in out
    assert "off by at most, T=4" in out
    assert main(["cache", "inspect", str(tmp_path)]) == 1
    assert "holds no cache" in capsys.readouterr().err


def test_the_number_of_devices_changes_no_answer(job, tmp_path):
    """Asked by one device, by eight, in other batches: to float16's last digit."""
    everything = dataclasses.replace(job.runtime, devices=8)
    wants = with_cache(dataclasses.replace(job, runtime=everything), tmp_path / "eight")
    caching.build(wants, tmp_path)
    store = Store(tmp_path / "eight")
    small = dataclasses.replace(job.runtime, eval_batch_size=8, devices=1)
    other = with_cache(dataclasses.replace(job, runtime=small), tmp_path / "other")
    caching.build(other, tmp_path)
    for part, _ in store.files():
        ours, theirs = (s.load(part)["logits"] for s in (store, Store(tmp_path / "other")))
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
