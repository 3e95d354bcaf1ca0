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

from kdjax.data.augment import RandomErasing
from kdjax.data.augment.operations import in_turn, table
from kdjax.data.augment.policies import POLICIES, _rows
from tests.torch_parity.augment import ERASING, STORED, erased, picture
from tests.views import batch, different, views

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
