"""Augmentation against plain NumPy, and its one source of randomness: (seed, view, index)."""

import colorsys
import dataclasses
import functools
import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.augment import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    MixupOrCutMix,
    PadCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    ThreeAugment,
    TrivialAugment,
    augment,
)
from kdjax.data.augment.base import Transform
from kdjax.data.augment.colour import adjusted
from kdjax.data.augment.mixing import partners
from kdjax.data.pipeline import TrainingStream
from kdjax.data.sources import Arrays
from kdjax.experiment import Data
from kdjax.models import SmallCNN
from kdjax.training.gradients import _seen
from kdjax.training.recipe import Recipe
from kdjax.types import AXIS
from tests.training import make_run, random_teacher, train
from tests.views import EXAMPLES, HEIGHT, WIDTH, batch, different, on_devices, views

STANDARD = (PadCrop(padding=2), Flip())

OTHER_VALUES = {
    (PadCrop, "padding"): 1,
    (Flip, "probability"): 0.1,
    (RandomResizedCrop, "scale"): (0.3, 0.4),
    (RandomResizedCrop, "ratio"): (0.5, 0.5),
    (RandAugment, "num_ops"): 1,
    (RandAugment, "magnitude"): 20,
    (AutoAugment, "policy"): "imagenet",
    (ThreeAugment, "sigma"): (2.0, 3.0),
    (ThreeAugment, "jitter"): 0.0,
    (ColorJitter, "brightness"): 0.1,
    (ColorJitter, "contrast"): 0.1,
    (ColorJitter, "saturation"): 0.1,
    (ColorJitter, "hue"): 0.1,
    (Cutout, "size"): 3,
    (RandomErasing, "probability"): 0.1,
    (RandomErasing, "scale"): (0.5, 0.6),
    (RandomErasing, "ratio"): (0.5, 0.5),
    (RandomErasing, "mean"): (0.1,),
    (RandomErasing, "std"): (0.1,),
    (Mixup, "alpha"): 0.2,
    (Mixup, "probability"): 0.1,
    (CutMix, "alpha"): 0.2,
    (CutMix, "probability"): 0.1,
    (MixupOrCutMix, "mixup_alpha"): 0.2,
    (MixupOrCutMix, "cutmix_alpha"): 0.2,
    (MixupOrCutMix, "probability"): 0.1,
    (MixupOrCutMix, "switch_probability"): 0.1,
}
KINDS = typing.get_args(Augmentation)[:-1]
OF_ONE_IMAGE = [kind for kind in KINDS if not kind.mixes]
OF_LEVELS = [RandAugment, TrivialAugment, AutoAugment, ThreeAugment]
"""They know uint8 only."""


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


def slopes(examples=256, height=24, width=24):
    """Images whose first channel is the row of each pixel and whose second is its column."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    image = np.broadcast_to(np.stack([rows, columns], axis=-1), (examples, height, width, 2))
    return batch(examples, image=image)


def windows_of(view):
    """Corner and extent of each view of `slopes`, read off two pixels in its middle."""
    size = np.array(view.shape[1:3])
    i, j = middle = size // 2
    extent = size * np.stack(
        [view[:, i + 1, j, 0] - view[:, i, j, 0], view[:, i, j + 1, 1] - view[:, i, j, 1]], axis=-1
    )
    # Pixel i of a view has its centre at corner + (i + 1/2) extent / size.
    return view[:, i, j] + 0.5 - (middle + 0.5) * extent / size, extent


def np_windows(crop, height, width, examples):
    """Corner and extent as torchvision's `get_params` draws them, one after the other."""
    rng, found = np.random.default_rng(0), []

    def draw():
        for _ in range(10):
            area = height * width * rng.uniform(*crop.scale)
            ratio = np.exp(rng.uniform(*np.log(crop.ratio)))
            w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return rng.integers(height - h + 1), rng.integers(width - w + 1), h, w
        w, h = width, height
        if width / height < min(crop.ratio):
            h = round(w / min(crop.ratio))
        elif width / height > max(crop.ratio):
            w = round(h * max(crop.ratio))
        return (height - h) // 2, (width - w) // 2, h, w

    found = np.array([draw() for _ in range(examples)])
    return found[:, :2], found[:, 2:]


WINDOWS = {
    "square": (RandomResizedCrop(), 32, 32),
    "low": (RandomResizedCrop(), 24, 40),
    "high and often too large": (RandomResizedCrop(scale=(0.5, 1.0), ratio=(0.5, 2.0)), 40, 16),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_resized_crops_are_drawn_as_torchvision_draws_them(case):
    crop, *shape = WINDOWS[case]
    ours = windows_of(np.asarray(views((crop,), 0, slopes(4096, *shape))))
    theirs = np_windows(crop, *shape, 20_000)
    np.testing.assert_allclose(ours, np.round(ours), atol=2e-3)  # whole pixels

    def numbers(corner, extent):
        corner, extent = np.round(corner), np.round(extent)
        assert corner.min() >= 0
        assert (corner + extent <= shape).all()
        free = shape - extent
        return {
            "area": extent.prod(axis=1) / np.prod(shape),
            "log ratio": np.log(extent[:, 1] / extent[:, 0]),
            "a full side": (free == 0).any(axis=1),
            "row": corner[:, 0] / shape[0],
            "column": corner[:, 1] / shape[1],
        }

    expected = numbers(*theirs)
    for name, values in numbers(*ours).items():
        deviation = expected[name].std()
        # Of the difference of two means: deviation sqrt(1 / 4096 + 1 / 20000).
        assert abs(values.mean() - expected[name].mean()) < 4.5 * deviation / 58, name
        assert abs(values.std() - deviation) < 0.05 * deviation + 0.005, name


@pytest.mark.parametrize(
    ("height", "width", "window"), [(24, 6, (8, 0, 8, 6)), (6, 25, (0, 8, 6, 8))]
)
def test_where_nothing_fits_the_window_is_the_largest_in_the_middle(height, width, window):
    crop = RandomResizedCrop(scale=(0.9, 1.0))
    found = np.concatenate(
        windows_of(np.asarray(views((crop,), 0, slopes(8, height, width)))), axis=1
    )
    np.testing.assert_allclose(found, np.broadcast_to(window, (8, 4)), atol=1e-3)
    np.testing.assert_array_equal(
        np.concatenate(np_windows(crop, height, width, 8), axis=1), found.round()
    )


def test_a_resized_crop_interpolates_linearly():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (24, 24, 2)).astype(np.float32)
    crop = RandomResizedCrop(scale=(0.2, 0.9))
    corner, extent = windows_of(np.asarray(views((crop,), 0, slopes(8))))
    examples = batch(8, image=np.broadcast_to(image, (8, 24, 24, 2)))
    seen = np.asarray(views((crop,), 0, examples))
    for n in range(8):
        at = [corner[n, k] + (np.arange(24) + 0.5) * extent[n, k] / 24 - 0.5 for k in range(2)]
        at = [np.clip(places, 0, 23) for places in at]
        columns = [
            [np.interp(at[1], np.arange(24), image[r, :, c]) for r in range(24)] for c in range(2)
        ]
        expected = np.stack(
            [
                [np.interp(at[0], np.arange(24), np.array(columns[c])[:, j]) for j in range(24)]
                for c in range(2)
            ]
        ).transpose(2, 1, 0)
        np.testing.assert_allclose(seen[n], expected, atol=0.1)


def test_a_resized_crop_of_whole_numbers_is_rounded():
    examples = different()
    precise = examples._replace(image=examples.image.astype(jnp.float32))
    seen, unrounded = (views((RandomResizedCrop(),), 0, x) for x in (examples, precise))
    assert seen.dtype == np.uint8
    # Half-way between two levels, where whole windows often lie, either is right.
    np.testing.assert_allclose(seen, unrounded, atol=0.5 + 1e-3, rtol=0)


def test_the_whole_window_is_the_image():
    whole = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(views((whole,), 0, slopes(4)), slopes(4).image, atol=1e-4)


def test_the_protocol_of_repdistiller():
    """Zeros around the raw image, a window, a mirror; then levels in [0, 1], then mean and std."""
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    image = np.random.default_rng(1).integers(1, 256, (64, 32, 32, 3), np.uint8)
    seen = np.asarray(views((PadCrop(padding=4), Flip()), 0, batch(image=image)))
    model = SmallCNN(mean=mean, std=std)
    ours = np.asarray(jax.jit(lambda x: model.pixels(x))(seen))
    found = set()
    for plain, view in zip(image, ours, strict=True):
        windows = {
            (row, column, step): np_crop(plain, 4, row, column)[:, ::step]
            for row in range(9)
            for column in range(9)
            for step in (1, -1)
        }
        normal = {
            at: (window / 255 - np.array(mean)) / np.array(std) for at, window in windows.items()
        }
        fits = [at for at, values in normal.items() if np.abs(values - view).max() < 2e-6]
        assert len(fits) == 1
        found.add(fits[0])
    rows, columns, steps = (set(values) for values in zip(*found, strict=True))
    assert rows == columns == set(range(9))
    assert steps == {1, -1}


def test_cutout_blackens_a_square_about_any_pixel():
    examples = batch(HEIGHT * WIDTH * 64)
    seen, plain = np.asarray(views((Cutout(size=4),), 0, examples)), np.asarray(examples.image[0])
    counts = dict.fromkeys(itertools.product(range(HEIGHT), range(WIDTH)), 0)
    squares = {}
    for row, column in counts:
        square = plain.copy()
        square[max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = 0
        squares[square.tobytes()] = row, column
    assert len(squares) == HEIGHT * WIDTH
    for view in seen:
        counts[squares[view.tobytes()]] += 1
    # 64 expected each, with a standard deviation of 8.
    assert 28 < min(counts.values()) < max(counts.values()) < 104


def np_jitter(image, factors, order):
    """One step after the other in float64; hue by Python's own colorsys."""
    x = image.astype(np.float64)
    for step in order:
        grey = (x @ [0.2989, 0.587, 0.114])[..., None] if x.shape[-1] == 3 else x
        if step == 3:
            hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in x.reshape(-1, 3)]
            turned = [colorsys.hsv_to_rgb((h + factors[3]) % 1, s, v) for h, s, v in hsv]
            x = np.array(turned).reshape(x.shape)
        else:
            other = [0.0, grey.mean(), grey][step]
            x = np.clip(factors[step] * x + (1 - factors[step]) * other, 0, 1)
    return x


@pytest.mark.parametrize("channels", [3, 1])
def test_jitter_is_its_definition_in_every_order(channels):
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(HEIGHT, WIDTH, channels)).astype(np.float32)
    image[0, 0] = 0.5  # a grey pixel has no hue
    for order in itertools.permutations(range(4 if channels == 3 else 3)):
        factors = np.array([*rng.uniform(0.2, 1.8, 3), rng.uniform(-0.5, 0.5)], np.float32)
        ours = jax.jit(adjusted)(image, factors, np.array(order))
        np.testing.assert_allclose(ours, np_jitter(image, factors, order), atol=2e-6)


def test_jitter_draws_factors_and_orders():
    jitter = ColorJitter(brightness=0.2, contrast=0.5, saturation=2.0, hue=0.1)
    keys = jax.random.split(jax.random.key(0), 2400)
    factors, orders = map(np.asarray, jax.jit(jax.vmap(jitter._drawn))(keys))
    for drawn, low, high in zip(factors.T, (0.8, 0.5, 0, -0.1), (1.2, 1.5, 3, 0.1), strict=True):
        width = high - low
        assert low <= drawn.min() < low + 0.02 * width
        assert high - 0.02 * width < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 4 * 0.289 * width / 49
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert 60 < counts.min() < counts.max() < 145  # 100 expected, with a deviation of 10
    assert set(map(len, [jax.jit(ColorJitter()._drawn)(keys[0])[1]])) == {3}


def test_jittered_levels_are_rounded_once():
    examples = different()
    precise = examples._replace(image=examples.image / np.float32(255))
    crop = (ColorJitter(),)
    seen = np.asarray(views(crop, 0, examples)).astype(float)
    assert np.abs(seen - 255 * np.asarray(views(crop, 0, precise))).max() < 0.5 + 1e-3


# --- Mixing ------------------------------------------------------------------------------------


def test_mixup_mixes_each_image_with_the_next_of_the_batch():
    examples = different()
    mixed = on_devices((Mixup(),), 0, examples)
    image = np.asarray(examples.image, np.float64) / 255
    share = mixed.share[:, None, None, None].astype(np.float64)
    expected = share * image + (1 - share) * np.roll(image, -1, axis=0)
    np.testing.assert_allclose(mixed.image, expected, atol=1e-6)
    assert mixed.image.dtype == np.float32
    np.testing.assert_array_equal(mixed.other_label, np.roll(examples.label, -1))
    np.testing.assert_array_equal(mixed.label, examples.label)


def np_partner(index, views):
    """Of each place that of its partner, and whether it is the same view of the next example."""
    for i, own in enumerate(index):
        near = (i + views) % len(index)
        far = [j % len(index) for j in range(i + 1, i + len(index)) if index[j % len(index)] != own]
        yield (near, True) if index[near] != own else (far[0] if far else near, False)


@pytest.mark.parametrize(
    ("views", "size", "devices"), [(1, 8, 4), (2, 8, 1), (2, 8, 8), (3, 4, 2), (3, 7, 1), (2, 2, 1)]
)
def test_the_partner_is_another_example_if_the_batch_has_one(views, size, devices):
    """Whatever views follow each other, at the ends of batches and of epochs too."""

    @jax.jit
    @functools.partial(jax.vmap, axis_name=AXIS)
    def places(index, place):
        return partners(index, views)(place)

    source, all_near = Arrays(np.zeros((9, 4, 4, 1), np.uint8), np.arange(9)), []
    stream, place = TrainingStream(source, size, 2, views), np.arange(size)
    for step in range(40):
        index = stream.names(step, place).index
        found = places(index.reshape(devices, -1), place.reshape(devices, -1)).reshape(-1)
        partner, near = zip(*np_partner(index, views), strict=True)
        np.testing.assert_array_equal(found, partner)
        if len(set(index)) > 1:
            assert (index[found] != index).all()
        all_near += near
    assert not all(all_near), "both kinds were there"
    assert any(all_near) or size <= views


def test_a_step_mixes_views_of_an_example_with_those_of_another(digits):
    source, run = digits.open("train"), make_run(data=Data(augment=(CutMix(),), views=3))
    batch = TrainingStream(source, 32, 0, views=3).batch(0, np.arange(32))
    recipe = Recipe.of(run, None, len(source))
    mix = jax.jit(jax.vmap(functools.partial(_seen, recipe), axis_name=AXIS))
    mixed = mix(jax.tree.map(lambda x: x[None], batch))
    np.testing.assert_array_equal(mixed.other_label[0], np.roll(batch.label, -3))


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_the_number_of_devices_changes_nothing(devices):
    transforms = (PadCrop(padding=1), Flip(), Mixup(alpha=0.5, probability=0.7))
    one, many = (on_devices(transforms, 3, different(), n) for n in (1, devices))
    for ours, theirs in zip(*map(jax.tree.leaves, (many, one)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    "layout",
    [("pmap", 8), pytest.param(("shard_map", 2), marks=pytest.mark.slow)],
    ids=str,
)
def test_a_training_with_mixed_images_does_not_depend_on_the_layout(layout, digits):
    run = make_run(data=Data(augment=(RandomResizedCrop(), Mixup())))
    source = digits.open("train")
    histories = [train(run, source, random_teacher(), way)[1] for way in (("pmap", 1), layout)]
    np.testing.assert_allclose(*histories, rtol=2e-4)
    plain = train(make_run(), source, random_teacher())[1]
    assert (np.abs(plain - histories[0])[:, 0] > 1e-3).all()


def test_what_is_mixed_was_seen_through_the_other_transforms_first():
    seen = np.asarray(views(STANDARD, 0, different()), np.float64) / 255
    mixed = on_devices((*STANDARD, Mixup()), 0, different(), 2)
    share = mixed.share[:, None, None, None]
    expected = share * seen + (1 - share) * np.roll(seen, -1, axis=0)
    np.testing.assert_allclose(mixed.image, expected, atol=1e-6)


def test_the_share_belongs_to_the_example():
    examples, order = different(), np.random.default_rng(0).permutation(EXAMPLES)
    share = on_devices((Mixup(),), 0, examples).share
    shuffled = jax.tree.map(lambda leaf: leaf[order], examples)
    np.testing.assert_array_equal(on_devices((Mixup(),), 0, shuffled).share, share[order])
    later = examples._replace(view=examples.view + 1)
    for other in (on_devices((Mixup(),), 1, examples), on_devices((Mixup(),), 0, later)):
        assert (other.share != share).all()


def test_shares_follow_the_beta_distribution():
    share = on_devices((Mixup(alpha=1.0),), 0, different(1024)).share
    assert abs(share.mean() - 0.5) < 4 * 0.289 / 32
    assert abs(share.var() - 1 / 12) < 0.01
    narrow = on_devices((Mixup(alpha=0.2),), 0, different(1024)).share
    assert abs(narrow.var() - 1 / (4 * 1.4)) < 0.02
    rarely = on_devices((Mixup(probability=0.25),), 0, different(1024)).share
    assert abs((rarely < 1).mean() - 0.25) < 4 * 0.433 / 32


def test_cutmix_pastes_a_rectangle_of_the_next_image_about_any_pixel():
    image = np.zeros((2048, 9, 12, 1), np.uint8)
    image += (np.arange(2048) % 2 * 255).astype(np.uint8)[:, None, None, None]
    label = jnp.arange(2048, dtype=jnp.int32)
    mixed = on_devices((CutMix(),), 0, batch(2048, image=image)._replace(label=label), 8)
    assert mixed.image.dtype == np.uint8
    np.testing.assert_array_equal(mixed.other_label, np.roll(label, -1))
    pasted = (mixed.image != image)[..., 0]
    np.testing.assert_allclose(mixed.share, 1 - pasted.mean(axis=(1, 2)), atol=1e-6)
    rows, columns = pasted.any(axis=2), pasted.any(axis=1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None])
    for line in (rows, columns):  # without a gap
        assert (np.abs(np.diff(line.astype(int), axis=1)).sum(axis=1) <= 2).all()
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    whole = ~rows[:, 0] & ~rows[:, -1] & ~columns[:, 0] & ~columns[:, -1] & (height > 2)
    assert whole.sum() > 50
    assert (np.abs(height[whole] / 9 - width[whole] / 12) < 1 / 9).all(), "its proportions"
    assert (pasted.mean(axis=0) > 0.05).all()


def np_cutmix_share(alpha, height, width, examples):
    """The paper's rectangle, drawn by NumPy."""
    rng = np.random.default_rng(0)
    shares = np.empty(examples)
    for i, share in enumerate(rng.beta(alpha, alpha, examples)):
        sides = [
            np.clip([c - s // 2, c - s // 2 + s], 0, n)
            for n in (height, width)
            for s, c in [(int(n * np.sqrt(1 - share)), rng.integers(n))]
        ]
        shares[i] = 1 - np.prod([stop - start for start, stop in sides]) / (height * width)
    return shares


@pytest.mark.parametrize("alpha", [pytest.param(1.0, marks=pytest.mark.slow), 0.3])
def test_shares_of_cutmix_are_those_of_the_paper(alpha):
    ours = on_devices((CutMix(alpha=alpha),), 0, different(4096)).share
    theirs = np_cutmix_share(alpha, HEIGHT, WIDTH, 40_000)
    assert abs(ours.mean() - theirs.mean()) < 4 * theirs.std() / 64
    assert abs(ours.std() - theirs.std()) < 0.02
    for level in (0.3, 0.6, 0.9):
        assert abs((ours <= level).mean() - (theirs <= level).mean()) < 0.04
    rarely = on_devices((CutMix(probability=0.25),), 0, different(1024)).share
    assert 0.1 < (rarely < 1).mean() < 0.3


def test_an_image_that_is_not_mixed_is_itself():
    mixed = on_devices((Mixup(probability=0.0),), 0, different())
    assert (mixed.share == 1).all()
    np.testing.assert_allclose(mixed.image * 255, different().image, atol=1e-4)


# --- The key -----------------------------------------------------------------------------------


def test_the_view_belongs_to_the_example_and_not_to_its_place():
    examples, order = batch(), np.random.default_rng(0).permutation(EXAMPLES)
    shuffled = jax.tree.map(lambda leaf: leaf[order], examples)
    seen = views(STANDARD, 0, examples)
    np.testing.assert_array_equal(views(STANDARD, 0, shuffled), seen[order])
    alone = jax.tree.map(lambda leaf: leaf[7:9], examples)
    np.testing.assert_array_equal(views(STANDARD, 0, alone), seen[7:9])
    assert len(np.unique(np.asarray(seen).reshape(EXAMPLES, -1), axis=0)) > 20


@pytest.mark.parametrize("key", [{"seed": 1}, {"view": 1}, {"index": 1}])
def test_another_seed_view_or_index_is_another_view(key):
    seeds = {"seed": 0, "view": 0, "index": 0}

    def draw(seed, view, index):
        drawn = [batch(1, view=view + 10 * i, index=index + 10 * i) for i in range(16)]
        return views(STANDARD, seed, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn))

    first, again, other = draw(**seeds), draw(**seeds), draw(**{**seeds, **key})
    np.testing.assert_array_equal(first, again)
    same = (np.asarray(first) == np.asarray(other)).all(axis=(1, 2, 3))
    assert same.sum() < 4  # one in fifty by chance


def test_view_and_index_do_not_stand_in_for_each_other():
    one = views(STANDARD, 0, batch(32, view=3, index=5))
    other = views(STANDARD, 0, batch(32, view=5, index=3))
    sum_kept = views(STANDARD, 0, batch(32, view=4, index=4))
    assert len({np.asarray(v[0]).tobytes() for v in (one, other, sum_kept)}) == 3


def test_labels_and_positions_pass_untouched():
    examples = batch(8, view=2)
    seen = augment(STANDARD, 0, examples)
    for name in ("label", "index", "view", "mask"):
        assert getattr(seen, name) is getattr(examples, name)
    assert augment((), 0, examples) is examples


# --- The contract ------------------------------------------------------------------------------


def kinds_of_images():
    """Every kind of image that a transform knows; levels are whole numbers."""
    for kind, dtype, channels in itertools.product(OF_ONE_IMAGE, ("uint8", "float32"), (3, 1)):
        if kind not in OF_LEVELS or dtype == "uint8":
            yield kind, dtype, channels


def image_of(dtype, channels):
    image = (np.asarray(batch().image) / (1 if dtype == "uint8" else 255)).astype(dtype)
    return image[..., :channels]


@pytest.mark.parametrize(("kind", "dtype", "channels"), [*kinds_of_images()])
def test_shape_and_type_stay(kind, dtype, channels):
    image = image_of(dtype, channels)
    seen = jax.eval_shape(functools.partial(views, (kind(),)), 0, batch(image=image))
    assert (seen.shape, seen.dtype) == (image.shape, dtype)


@pytest.mark.parametrize(
    ("kind", "dtype", "channels"),
    [
        pytest.param(*case, marks=() if case[1:] == ("uint8", 3) else pytest.mark.slow)
        for case in kinds_of_images()
    ],
)
def test_a_view_is_another_image(kind, dtype, channels):
    image = image_of(dtype, channels)
    assert (np.asarray(views((kind(),), 0, batch(image=image))) != image).any()


@pytest.mark.parametrize("kind", OF_ONE_IMAGE, ids=lambda kind: kind.__name__)
def test_transforms_that_do_not_mix_see_one_image_and_its_key(kind):
    assert kind.apply is Transform.apply


@pytest.mark.parametrize(
    "kind", [pytest.param(x, marks=() if x is CutMix else pytest.mark.slow) for x in KINDS]
)
def test_no_view_depends_on_the_number_of_devices(kind):
    """Every transform, behind another one; to the bit where no shares are drawn."""
    found = (on_devices((Flip(), kind()), 5, different(), n) for n in (1, 4))
    for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6 if kind in (Mixup, MixupOrCutMix) else 0)


FIELDS = [(kind, field.name) for kind in KINDS for field in dataclasses.fields(kind)]


def test_every_field_has_another_value():
    assert set(OTHER_VALUES) == set(FIELDS), "and a test of what the new field means"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_changes_the_view(kind, field):
    other = kind(**{field: OTHER_VALUES[kind, field]})
    one, another = (on_devices((transform,), 0, different()) for transform in (kind(), other))
    assert (one.image != another.image).any()
