"""The operations of policies against Pillow itself and against plain NumPy; then the policies."""

import collections
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kdjax.data.augment import AutoAugment, RandAugment, TrivialAugment
from kdjax.data.augment.operations import USUAL, apply, operation, table
from kdjax.data.augment.policies import NAMES, POLICIES, WIDE

ALL = (*NAMES, "Invert")
ENHANCERS = {
    "Brightness": ImageEnhance.Brightness,
    "Contrast": ImageEnhance.Contrast,
    "Color": ImageEnhance.Color,
    "Sharpness": ImageEnhance.Sharpness,
}
LEVELS = [i / 30 for i in range(31)]


def images(height, width, channels):
    """Noise, a soft picture of few levels, a ramp in a narrow range, and one even colour."""
    rng = np.random.default_rng(height * width + channels)
    noise = rng.integers(0, 256, (height, width, channels))
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(y / 3 + c) * np.cos(x / (4 + c)) for c in range(channels)], axis=-1)
    soft = np.round(120 + 90 * waves) // 8 * 8
    ramp = 40 + (np.arange(height * width * channels) % 150).reshape(noise.shape)
    even = np.full_like(noise, 77)
    return [image.astype(np.uint8) for image in (noise, soft, ramp, even)]


SHAPES = [(32, 32, 3), (13, 21, 3), (28, 28, 1)]
IMAGES = {shape: images(*shape) for shape in SHAPES}


def to_pil(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def by_pil(image, name, level, sign, most=USUAL):
    """The operation as torchvision calls Pillow; affine maps as its `affine` gives them."""
    height, width, channels = image.shape
    picture = to_pil(image)

    def affine(*matrix):
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.NEAREST)

    def pixels(side):
        return int(sign * level * (150 / 331 * side if most.shift is None else most.shift))

    shear = math.tan(math.atan(sign * level * most.shear))
    if name in ENHANCERS:
        seen = ENHANCERS[name](picture).enhance(1 + sign * level * most.enhance)
    elif name == "Rotate":
        seen = picture.rotate(sign * level * most.degrees, Image.NEAREST)
    else:
        seen = {
            "Identity": lambda: picture,
            "ShearX": lambda: affine(1, shear, 0, 0, 1, 0),
            "ShearY": lambda: affine(1, 0, 0, shear, 1, 0),
            "TranslateX": lambda: affine(1, 0, -pixels(width), 0, 1, 0),
            "TranslateY": lambda: affine(1, 0, 0, 0, 1, -pixels(height)),
            "Posterize": lambda: ImageOps.posterize(picture, 8 - round(level * most.bits)),
            "Solarize": lambda: ImageOps.solarize(picture, 255 - 255 * level),
            "AutoContrast": lambda: ImageOps.autocontrast(picture),
            "Equalize": lambda: ImageOps.equalize(picture),
            "Invert": lambda: ImageOps.invert(picture),
        }[name]()
    return np.asarray(seen).reshape(height, width, channels)


def moved(image, a, b, c, d, e, f):
    """Nearest pixel, in 16.16 fixed point; black outside."""
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width]

    def place(m, n, shift):
        m, n, start = (int(np.floor(v * 65536 + 0.5)) for v in (m, n, shift + m / 2 + n / 2))
        return (m * x + n * y + start) // 65536

    column, row = place(a, b, c), place(d, e, f)
    outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
    view = image[row.clip(0, height - 1), column.clip(0, width - 1)]
    return np.where(outside[..., None], 0, view)


def grey_of(image):
    if image.shape[-1] == 1:
        return image
    return ((image @ np.array([19595, 38470, 7471]) + 32768) // 65536)[..., None]


def smooth_of(image):
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(0, 1))
    view = image.astype(float)
    view[1:-1, 1:-1] = np.floor((windows * kernel).sum(axis=(-2, -1)) + 0.5)
    return view


def blended(image, other, factor):
    """Each product and each sum rounded to single precision, then cut off."""
    gap = np.float32(image - other)
    return np.clip(np.float32(other) + np.float32(factor) * gap, 0, 255).astype(np.uint8)


def equalized(channel):
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (channel.size - counts[channel.max()]) // 255
    if step == 0:
        return channel
    below = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.minimum((below + step // 2) // step, 255)[channel]


def stretched(channel):
    low, high = channel.min(), channel.max()
    return 255 * (channel - low) // (high - low) if high > low else channel


def by_numpy(image, name, level, sign):
    """The operation from its definition, in the usual ranges."""
    height, width, _ = image.shape
    x = image.astype(int)
    factor, shear = 1 + sign * level * 0.9, sign * level * 0.3
    shifts = [int(sign * level * side * 150 / 331) for side in (width, height)]
    angle = math.radians(-sign * level * 30)
    cos, sin = math.cos(angle), math.sin(angle)
    left, up = (1 - cos) * width / 2, (1 - cos) * height / 2
    threshold = round(255 - 255 * level, 6)
    return {
        "Identity": lambda: x,
        "ShearX": lambda: moved(x, 1, shear, 0, 0, 1, 0),
        "ShearY": lambda: moved(x, 1, 0, 0, shear, 1, 0),
        "TranslateX": lambda: moved(x, 1, 0, -shifts[0], 0, 1, 0),
        "TranslateY": lambda: moved(x, 1, 0, 0, 0, 1, -shifts[1]),
        "Rotate": lambda: moved(
            x, cos, sin, left - sin * height / 2, -sin, cos, up + sin * width / 2
        ),
        "Brightness": lambda: blended(x, np.zeros_like(x), factor),
        "Contrast": lambda: blended(x, np.floor(grey_of(x).mean() + 0.5), factor),
        "Color": lambda: blended(x, grey_of(x), factor),
        "Sharpness": lambda: blended(x, smooth_of(x), factor),
        "Posterize": lambda: x >> round(4 * level) << round(4 * level),
        "Solarize": lambda: np.where(x < threshold, x, 255 - x),
        "Invert": lambda: 255 - x,
        "AutoContrast": lambda: np.stack([stretched(c) for c in np.moveaxis(x, -1, 0)], axis=-1),
        "Equalize": lambda: np.stack([equalized(c) for c in np.moveaxis(x, -1, 0)], axis=-1),
    }[name]().astype(np.uint8)


# --- Operations --------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def compiled_as_users_compile():
    """Where compilers fuse multiplications with additions, which must round nothing else."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@jax.jit
def applied(image, operations):
    return jax.vmap(apply, (None, 0))(image, operations)


def ours(image, calls, most=USUAL):
    rows = table([operation(*call, image.shape, most) for call in calls])
    return np.asarray(applied(image, jax.tree.map(jnp.asarray, rows)))


@pytest.mark.parametrize("most", [USUAL, WIDE], ids=["usual", "wide"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_operation_is_pillows_to_the_last_bit(shape, most):
    calls = list(itertools.product(set(ALL) - {"AutoContrast"}, LEVELS, (1, -1)))
    for image in IMAGES[shape]:
        seen = ours(image, calls, most)
        for view, call in zip(seen, calls, strict=True):
            expected = by_pil(image, *call, most)
            assert (view == expected).all(), (call, np.abs(view.astype(int) - expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_operation_is_its_definition(shape):
    calls = list(itertools.product(ALL, LEVELS, (1, -1)))
    for image in IMAGES[shape]:
        for view, call in zip(ours(image, calls), calls, strict=True):
            np.testing.assert_array_equal(view, by_numpy(image, *call), str(call))


def test_stretched_contrast_is_pillows_but_for_a_level_where_that_falls_short():
    """Of all ranges, steps apart, with every level of each: about one in 260 levels."""
    gaps = []
    for low, high in itertools.product(range(0, 250, 25), range(5, 256, 25)):
        if low < high:
            image = np.linspace(low, high, 256).round().astype(np.uint8).reshape(16, 16, 1)
            view = ours(image, [("AutoContrast", 0, 1)])[0]
            gaps.append(view.astype(int) - by_pil(image, "AutoContrast", 0, 1))
    assert set(np.unique(gaps)) == {0, 1}
    assert np.mean(gaps) < 0.02


def test_equal_levels_and_tiny_images_are_left_alone():
    for image in (np.full((1, 1, 3), 9, np.uint8), np.full((2, 5, 1), 200, np.uint8)):
        for name in ("AutoContrast", "Equalize", "Sharpness"):
            np.testing.assert_array_equal(ours(image, [(name, 1.0, 1)])[0], image)


# --- Policies ----------------------------------------------------------------------------------

EXAMPLES = 4000
IMAGE = IMAGES[13, 21, 3][0]
"""Of so many pixels that `Equalize` does something."""


def keys():
    return jax.random.split(jax.random.key(0), EXAMPLES)


@functools.cache
def views(policy):
    """Of `IMAGE`, one for each of `keys`."""
    return np.asarray(jax.jit(jax.vmap(policy, (0, None)))(keys(), IMAGE))


def drawn(policy):
    """How often each view of `IMAGE` comes up."""
    return collections.Counter(view.tobytes() for view in views(policy))


def check(counts, chances):
    """Nothing comes up that cannot, and all the rest about as often as it should."""
    assert set(counts) <= set(chances)
    assert sum(chances.values()) == pytest.approx(1)
    for view, chance in chances.items():
        expected = EXAMPLES * chance
        assert abs(counts[view] - expected) < 5 * expected**0.5 + 3


def test_rand_augment_draws_each_of_14_operations_alike():
    chances = collections.Counter()
    for name, sign in itertools.product(NAMES, (1, -1)):
        chances[by_numpy(IMAGE, name, 0.7, sign).tobytes()] += 1 / 28
    assert len(NAMES) == 14
    check(drawn(RandAugment(num_ops=1, magnitude=21)), chances)


def test_rand_augment_draws_every_operation_anew():
    chances = collections.Counter()
    calls = list(itertools.product(NAMES, (1, -1)))
    for one, other in itertools.product(calls, calls):
        seen = by_numpy(IMAGE, one[0], 0.3, one[1])
        chances[by_numpy(seen, other[0], 0.3, other[1]).tobytes()] += 1 / 28**2
    check(drawn(RandAugment()), chances)


@pytest.mark.parametrize("policy", [pytest.param("cifar10", marks=pytest.mark.slow), "imagenet"])
def test_auto_augment_draws_pairs_of_its_policy(policy):
    chances = collections.Counter()
    assert len(POLICIES[policy]) == 25
    for (one, p, m), (other, q, n) in POLICIES[policy]:
        for signs in itertools.product((1, -1), (1, -1)):
            first = by_numpy(IMAGE, one, m / 9, signs[0])
            for seen, chance in ((first, p), (IMAGE, 1 - p)):
                chances[by_numpy(seen, other, n / 9, signs[1]).tobytes()] += chance * q / 100
                chances[seen.tobytes()] += chance * (1 - q) / 100
    check(drawn(AutoAugment(policy=policy)), chances)


def test_trivial_augment_draws_operation_magnitude_and_sign():
    chances = collections.Counter()
    for call in itertools.product(NAMES, LEVELS, (1, -1)):
        exact = call[0] == "AutoContrast"
        view = by_numpy(IMAGE, *call) if exact else by_pil(IMAGE, *call, WIDE)
        chances[view.tobytes()] += 1 / (14 * 31 * 2)
    check(drawn(TrivialAugment()), chances)


@pytest.mark.parametrize("policy", [RandAugment(), AutoAugment(), TrivialAugment()], ids=repr)
def test_the_view_does_not_depend_on_how_many_are_made_at_once(policy):
    alone = jax.jit(policy)
    for key, view in zip(keys()[:8], views(policy), strict=False):
        np.testing.assert_array_equal(alone(key, IMAGE), view)
