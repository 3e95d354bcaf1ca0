"""Views of whole recipes against what timm, torchvision and Pillow make of the same images.

`python -m tests.torch_parity.augment` stored what the first two do.
"""

import functools
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from kdjax.data.augment import ColorJitter, MixupOrCutMix, RandomErasing, ThreeAugment
from kdjax.data.augment.operations import in_turn, table
from kdjax.data.augment.policies import POLICIES, _rows
from kdjax.data.augment.three import blurred
from tests.torch_parity.augment import (
    ERASING,
    MIXED_SHAPE,
    MIXING,
    STORED,
    erased,
    mixed,
    picture,
)
from tests.views import batch, different, on_devices, views

THEIRS = json.loads(STORED.read_text())
DRAWS = 4096


def alike(ours, theirs, examples):
    """Shares, means and deviations: ours of so many draws, theirs of 20,000."""
    assert set(ours) == set(theirs)
    for name, stored in theirs.items():
        expected = stored if isinstance(stored, list) else [stored, (stored - stored**2) ** 0.5]
        error = 4.5 * expected[1] * (1 / examples + 1 / 20_000) ** 0.5
        for found, value in zip(np.atleast_1d(ours[name]), expected, strict=False):
            assert abs(found - value) <= error, name


# --- Random erasing ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ERASING)
def test_rectangles_are_erased_as_timm_erases_them(case):
    fields = dict(ERASING[case])
    height, width = fields.pop("shape")
    white = np.full((DRAWS, height, width, 1), 255, np.uint8)
    seen = np.asarray(views((RandomErasing(**fields, mean=(0.0,)),), 0, batch(DRAWS, image=white)))
    theirs = THEIRS["erasing"][case]
    alike(erased(seen[..., 0] == 0), theirs, DRAWS * theirs["often"])


def test_what_is_filled_in_is_a_level_in_0_to_1():
    """Of uint8 images the nearest whole one, of each channel its own; all else stays."""
    always = RandomErasing(probability=1.0, mean=(0.1, 0.5, 0.9))
    examples = different()
    precise = examples._replace(image=examples.image / np.float32(255))
    seen, unrounded = (np.asarray(views((always,), 0, x)) for x in (examples, precise))
    assert seen.dtype == np.uint8
    holes = (seen == [26, 128, 230]).all(axis=-1)
    assert (holes.any(axis=(1, 2))).all()
    np.testing.assert_array_equal(seen[~holes], np.asarray(examples.image)[~holes])
    np.testing.assert_allclose(unrounded[holes], [[0.1, 0.5, 0.9]] * holes.sum(), rtol=1e-6)
    np.testing.assert_array_equal(unrounded[~holes], np.asarray(precise.image)[~holes])


def test_noise_of_the_models_own_mean_and_std_is_normal_after_it():
    """timm's pixels, whose images are normalised: standard normal, each its own."""
    mean, std = (0.4, 0.5, 0.6), (0.05, 0.1, 0.02)
    noise = RandomErasing(probability=1.0, scale=(0.5, 0.5), ratio=(1.0, 1.0), mean=mean, std=std)
    black = np.zeros((64, 20, 20, 3), np.float32)
    seen = np.asarray(views((noise,), 0, batch(64, image=black)), np.float64)
    pixels = seen[seen.any(axis=-1)]
    assert len(pixels) == 64 * 14 * 14
    normal = (pixels - mean) / std
    assert np.abs(normal.mean(axis=0)).max() < 4.5 / len(normal) ** 0.5
    assert np.abs(normal.std(axis=0) - 1).max() < 0.03
    correlations = np.corrcoef([*normal.T, np.roll(normal[:, 0], 1)])
    assert np.abs(correlations - np.eye(4)).max() < 4.5 / len(normal) ** 0.5
    # The normal distribution itself: a third is more than one deviation away.
    assert abs((np.abs(normal) > 1).mean() - 0.3173) < 0.02


def test_noise_beyond_black_and_white_is_black_and_white():
    noise = RandomErasing(probability=1.0, mean=(1.0,), std=(1.0,))
    half = np.full((256, 12, 12, 1), 0.5, np.float32)
    for image in (half, (half * 255).astype(np.uint8)):
        seen = np.asarray(views((noise,), 0, batch(256, image=image)))
        drawn, white = seen[seen != image[0, 0, 0, 0]], 1 if image.dtype == np.float32 else 255
        assert abs((drawn == white).mean() - 0.5) < 0.04
        assert abs((drawn == 0).mean() - 0.159) < 0.03


# --- AutoAugment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_torchvisions(policy):
    """Its table, and each pair of operations in each direction to the byte."""
    theirs = THEIRS["policies"][policy]
    known = [[[name, p, m or 0] for name, p, m in pair] for pair in theirs["table"]]
    assert [[list(step) for step in pair] for pair in POLICIES[policy]] == known
    rows = table(_rows(POLICIES[policy], picture().shape))
    ways = [(first, second) for first in (0, 1) for second in (0, 1)]
    steps = [(4 * pair + i, 4 * pair + 2 + j) for pair in range(len(known)) for i, j in ways]
    both = jax.jit(jax.vmap(functools.partial(in_turn, jnp.asarray(picture()), rows)))
    sums = [zlib.crc32(np.asarray(view).tobytes()) for view in both(np.array(steps))]
    assert len(set(sums)) > len(known), "they differ"
    assert sums == theirs["views"]


# --- ThreeAugment --------------------------------------------------------------------------------


def by_pil(image, sigmas):
    """Blurred as often."""
    picture = Image.fromarray(image)
    return np.stack([picture.filter(ImageFilter.GaussianBlur(s)) for s in map(float, sigmas)])


@pytest.mark.parametrize("shape", [(24, 20, 3), (13, 5), (1, 2, 3)], ids=str)
def test_a_blur_is_pillows_to_the_last_bit(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    sigmas = np.linspace(0.05, 4, 120, dtype=np.float32)
    blur = jax.jit(jax.vmap(blurred, (None, 0, None)), static_argnums=2)
    ours = blur(jnp.asarray(image.reshape(*shape[:2], -1)), sigmas, 4)
    np.testing.assert_array_equal(ours.reshape(-1, *shape), by_pil(image, sigmas))


@functools.partial(jax.jit, static_argnums=0)
def seen_by(transform):
    """1500 views of `picture`."""
    return jax.vmap(transform, (0, None))(keys(), jnp.asarray(picture()))


def keys():
    return jax.random.split(jax.random.key(1), 1500)


@pytest.mark.parametrize("sigma", [(0.1, 2.0), (1.0, 1.5)])
def test_each_third_is_grey_or_solarized_or_blurred(sigma):
    seen = np.asarray(seen_by(ThreeAugment(sigma=sigma, jitter=0.0)))
    image = Image.fromarray(picture())
    others = [image.convert("L").convert("RGB"), ImageOps.solarize(image)]
    grey, solarized = ((seen == np.asarray(x)).all(axis=(1, 2, 3)) for x in others)
    blurs = seen[~grey & ~solarized].astype(int)
    for count in (grey.sum(), solarized.sum(), len(blurs)):
        assert abs(count - 500) < 4.5 * (1500 * 2 / 9) ** 0.5
    every = np.linspace(*sigma, 200)
    stored = by_pil(picture(), every).astype(int)
    gaps = np.stack([np.abs(blurs - blur).mean(axis=(1, 2, 3)) for blur in stored])
    assert gaps.min(axis=0).max() < 0.1, "levels, between two of the stored"
    found, width = every[gaps.argmin(axis=0)], sigma[1] - sigma[0]
    deviation = width / 12**0.5
    assert abs(found.mean() - sum(sigma) / 2) < 4.5 * deviation / len(blurs) ** 0.5
    assert abs(found.std() - deviation) < 0.07 * width


def test_what_follows_is_a_jitter_of_one_strength():
    plain, seen = (np.asarray(seen_by(ThreeAugment(jitter=j))) for j in (0.0, 0.5))
    light = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5)
    of_jitter = jax.vmap(jax.random.split, (0, None))(keys(), 3)[:, 2]
    expected = np.asarray(jax.jit(jax.vmap(light))(of_jitter, plain))
    assert (expected != plain).any(axis=(1, 2, 3)).all()
    gaps = np.abs(seen.astype(int) - expected)
    assert gaps.max() <= 1, "half-way between two levels either is right"
    assert gaps.mean() < 1e-3


# --- Mixup or CutMix -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param("deit", marks=pytest.mark.slow), "other"])
def test_images_are_mixed_as_often_and_as_far_as_timm_mixes_each(case):
    """White images with black ones, which tell of each pixel how much of it is their own."""
    white = np.arange(2 * DRAWS)[:, None, None, None] % 2 == 0
    image = np.broadcast_to(np.where(white, 255, 0), (2 * DRAWS, *MIXED_SHAPE, 1))
    examples = batch(2 * DRAWS, image=image.astype(np.uint8))
    seen = on_devices((MixupOrCutMix(**MIXING[case]),), 0, examples)
    weights = seen.image[::2, ..., 0]
    theirs = THEIRS["mixing"][case]
    rarest = min(theirs["blended"], 1 - theirs["blended"] - theirs["whole"])
    alike(mixed(weights), theirs, DRAWS * rarest)
    np.testing.assert_allclose(seen.share[::2], weights.mean(axis=(1, 2)), atol=1e-6)


def test_a_mixture_is_a_blend_or_has_a_rectangle_of_the_next_image():
    examples = different(256)
    seen = on_devices((MixupOrCutMix(probability=0.8),), 0, examples, 4)
    own = np.asarray(examples.image, np.float64) / 255
    other, share = np.roll(own, -1, axis=0), seen.share[:, None, None, None].astype(np.float64)
    np.testing.assert_array_equal(seen.other_label, np.roll(examples.label, -1))
    np.testing.assert_array_equal(seen.label, examples.label)

    def near(x):
        return np.abs(seen.image - x).max(axis=-1) < 1e-6

    blends = near(share * own + (1 - share) * other).all(axis=(1, 2))
    pasted = near(other) & ~near(own)
    cuts = (near(own) | pasted).all(axis=(1, 2))
    assert (blends | cuts).all()
    whole = seen.share == 1
    assert (blends & cuts == whole).all()
    assert min(whole.sum(), (blends & ~cuts).sum(), (cuts & ~blends).sum()) > 30
    holes = erased(pasted[cuts & ~whole])
    assert holes["often"] == 1, "and rectangles"
    np.testing.assert_allclose(seen.share[cuts], 1 - pasted[cuts].mean(axis=(1, 2)), atol=1e-6)
