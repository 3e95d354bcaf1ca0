"""Augmentation against plain NumPy, and its one source of randomness: (seed, epoch, index)."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.augment import Augmentation, Flip, PadCrop, augment
from kdjax.types import Batch

HEIGHT, WIDTH, CHANNELS, EXAMPLES = 6, 5, 3, 64
STANDARD = (PadCrop(padding=2), Flip())

OTHER_VALUES = {(PadCrop, "padding"): 1, (Flip, "probability"): 0.1}

every_kind = pytest.mark.parametrize(
    "kind", typing.get_args(Augmentation), ids=lambda kind: kind.__name__
)


def batch(examples=EXAMPLES, epoch=0, index=None, image=None):
    """Images without a zero and without two equal pixels, so that every view tells its offset."""
    index = np.arange(examples) if index is None else np.full(examples, index)
    pixels = np.arange(1, 1 + HEIGHT * WIDTH * CHANNELS, dtype=np.uint8)
    shape = (examples, HEIGHT, WIDTH, CHANNELS)
    image = np.broadcast_to(pixels.reshape(shape[1:]), shape) if image is None else image
    return Batch(
        jnp.asarray(image),
        jnp.zeros(examples, jnp.int32),
        jnp.asarray(index, jnp.int32),
        jnp.full(examples, epoch, jnp.int32),
        jnp.ones(examples, bool),
    )


@functools.partial(jax.jit, static_argnums=0)
def views(transforms, seed, examples):
    return augment(transforms, seed, examples).image


def np_crop(image, padding, row, column):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[row : row + image.shape[0], column : column + image.shape[1]]


def offsets_of(view, image, padding):
    """The one window of the padded image that the view is."""
    every = range(2 * padding + 1)
    found = [(r, c) for r in every for c in every if (np_crop(image, padding, r, c) == view).all()]
    assert len(found) == 1
    return found[0]


# --- Against NumPy -----------------------------------------------------------------------------


def test_pad_crop_is_a_window_of_the_padded_image():
    examples = batch()
    seen = np.asarray(views((PadCrop(padding=2),), 0, examples))
    drawn = [offsets_of(v, i, 2) for v, i in zip(seen, np.asarray(examples.image), strict=True)]
    rows, columns = zip(*drawn, strict=True)
    assert set(rows) == set(columns) == set(range(5))
    assert rows != columns


def test_pad_crop_draws_every_window_alike():
    drawn = np.asarray(views((PadCrop(padding=1),), 0, batch(9 * 64)))
    image = np.asarray(batch(1).image[0])
    windows = {(r, c): np_crop(image, 1, r, c) for r in range(3) for c in range(3)}
    counts = {at: sum((v == window).all() for v in drawn) for at, window in windows.items()}
    assert sum(counts.values()) == 9 * 64
    # 64 expected each, with a standard deviation of 7.5.
    assert min(counts.values()) > 34
    assert max(counts.values()) < 94


def test_pad_crop_without_padding_is_the_image():
    np.testing.assert_array_equal(views((PadCrop(padding=0),), 0, batch()), batch().image)


def test_flip_mirrors_the_columns_of_its_share():
    examples = batch(400)
    seen, plain = np.asarray(views((Flip(probability=0.25),), 0, examples)), examples.image
    mirrored = (seen == np.asarray(plain)[:, :, ::-1]).all(axis=(1, 2, 3))
    untouched = (seen == np.asarray(plain)).all(axis=(1, 2, 3))
    assert (mirrored ^ untouched).all()
    # 100 expected, with a standard deviation of 8.7.
    assert 65 < mirrored.sum() < 135


@pytest.mark.parametrize(("probability", "step"), [(0.0, 1), (1.0, -1)])
def test_flip_never_and_always(probability, step):
    seen = views((Flip(probability=probability),), 0, batch())
    np.testing.assert_array_equal(seen, batch().image[:, :, ::step])


def test_transforms_apply_in_their_order_with_draws_of_their_own():
    always, crop = Flip(probability=1.0), PadCrop(padding=2)
    image = np.asarray(batch(1).image[0])
    crop_first = np.asarray(views((crop, always), 0, batch()))
    flip_first = np.asarray(views((always, crop), 0, batch()))
    for view in crop_first:
        offsets_of(view[:, ::-1], image, 2)
    for view in flip_first:
        offsets_of(view, image[:, ::-1], 2)
    twice = np.asarray(views((crop, crop), 0, batch()))
    once = [offsets_of(view, image, 2) for view in np.asarray(views((crop,), 0, batch()))]
    doubled = [np_crop(np_crop(image, 2, *at), 2, *at) for at in once]
    assert not (twice == np.stack(doubled)).all(axis=(1, 2, 3)).all()


# --- The key -----------------------------------------------------------------------------------


def test_the_view_belongs_to_the_example_and_not_to_its_place():
    examples, order = batch(), np.random.default_rng(0).permutation(EXAMPLES)
    shuffled = jax.tree.map(lambda leaf: leaf[order], examples)
    seen = views(STANDARD, 0, examples)
    np.testing.assert_array_equal(views(STANDARD, 0, shuffled), seen[order])
    alone = jax.tree.map(lambda leaf: leaf[7:9], examples)
    np.testing.assert_array_equal(views(STANDARD, 0, alone), seen[7:9])
    assert len(np.unique(np.asarray(seen).reshape(EXAMPLES, -1), axis=0)) > 20


@pytest.mark.parametrize("key", [{"seed": 1}, {"epoch": 1}, {"index": 1}])
def test_another_seed_epoch_or_index_is_another_view(key):
    seeds = {"seed": 0, "epoch": 0, "index": 0}

    def draw(seed, epoch, index):
        drawn = [batch(1, epoch=epoch + 10 * i, index=index + 10 * i) for i in range(16)]
        return views(STANDARD, seed, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn))

    first, again, other = draw(**seeds), draw(**seeds), draw(**{**seeds, **key})
    np.testing.assert_array_equal(first, again)
    same = (np.asarray(first) == np.asarray(other)).all(axis=(1, 2, 3))
    assert same.sum() < 4  # one in fifty by chance


def test_epoch_and_index_do_not_stand_in_for_each_other():
    one = views(STANDARD, 0, batch(32, epoch=3, index=5))
    other = views(STANDARD, 0, batch(32, epoch=5, index=3))
    sum_kept = views(STANDARD, 0, batch(32, epoch=4, index=4))
    assert len({np.asarray(v[0]).tobytes() for v in (one, other, sum_kept)}) == 3


def test_labels_and_positions_pass_untouched():
    examples = batch(8, epoch=2)
    seen = augment(STANDARD, 0, examples)
    for name in ("label", "index", "epoch", "mask"):
        assert getattr(seen, name) is getattr(examples, name)
    assert augment((), 0, examples) is examples


# --- The contract ------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shape_and_type_stay(kind, dtype):
    image = np.asarray(batch().image).astype(dtype)
    seen = views((kind(),), 0, batch(image=image))
    assert (seen.shape, seen.dtype) == (image.shape, dtype)
    assert (np.asarray(seen) != image).any()


@pytest.mark.parametrize(
    ("kind", "field"),
    [(k, f.name) for k in typing.get_args(Augmentation) for f in dataclasses.fields(k)],
)
def test_every_field_changes_the_view(kind, field):
    assert (kind, field) in OTHER_VALUES, "give the new field another value in OTHER_VALUES"
    other = kind(**{field: OTHER_VALUES[kind, field]})
    assert (views((kind(),), 0, batch()) != views((other,), 0, batch())).any()
