"""The operations that policies are made of, as rows of numbers and one function that obeys them.

On an accelerator every image of a batch gets another operation, and a branch for each would compute
all of them for every image. So an operation is numbers: where pixels come from (an affine matrix),
what the image is blended with and how far, and a table of 256 levels. `apply` does all three, and
an operation leaves two of them as they are.

What each means, and where it rounds, is Pillow's: bytes are equal to those of `Image.transform`,
`ImageEnhance` and `ImageOps`, but for `AutoContrast`, where Pillow's double precision falls now and
then one level below the whole number that is meant.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

FIXED = 1 << 16
"""One, in the 16.16 fixed point numbers that Pillow finds the nearest pixel with."""
BLACK, MEAN, GREY, SMOOTH = range(4)
"""What an image is blended with: brightness, contrast, colour, sharpness."""


class Operation(NamedTuple):
    """Numbers, or columns of a table of them; as they are here they change nothing."""

    matrix: Any = (FIXED, 0, FIXED // 2, 0, FIXED, FIXED // 2)
    """Of the affine map from a pixel of the view to the image's; outside of that it is black."""
    towards: Any = BLACK
    """What `factor` 0 shows."""
    factor: Any = 1.0
    """Of the image; the rest, which may be negative, is the other's."""
    mask: Any = 255
    """Bits of a level that stay."""
    threshold: Any = 256
    """The level from which on levels are inverted."""
    stretch: Any = False
    """Each channel's darkest level becomes 0 and its brightest 255."""
    equalize: Any = False
    """Each channel's levels become about equally frequent."""


class Ranges(NamedTuple):
    """How strong operations are at most."""

    shear: float = 0.3
    """Pixels to the side for each pixel up."""
    shift: float | None = None
    """Pixels; None: 150/331 of the side, as AutoAugment's authors have it."""
    degrees: float = 30.0
    """Of a rotation."""
    enhance: float = 0.9
    """Of blends: factors are one plus and minus that."""
    bits: int = 4
    """Taken off each level."""


USUAL = Ranges()
"""Of AutoAugment and RandAugment."""

BLENDS = {"Brightness": BLACK, "Contrast": MEAN, "Color": GREY, "Sharpness": SMOOTH}


def operation(
    name: str, level: float, sign: int, shape: tuple[int, ...], most: Ranges = USUAL
) -> Operation:
    """What `name` is at `level` of its range, in [0, 1]; a sign means something to some only."""
    if name in BLENDS:
        return Operation(towards=BLENDS[name], factor=1 + sign * level * most.enhance)
    height, width = shape[:2]
    match name:
        case "Identity":
            return Operation()
        case "ShearX":
            return Operation(matrix=_fixed(1, sign * level * most.shear, 0, 0, 1, 0))
        case "ShearY":
            return Operation(matrix=_fixed(1, 0, 0, sign * level * most.shear, 1, 0))
        case "TranslateX":
            return Operation(matrix=_fixed(1, 0, -sign * _pixels(level, width, most), 0, 1, 0))
        case "TranslateY":
            return Operation(matrix=_fixed(1, 0, 0, 0, 1, -sign * _pixels(level, height, most)))
        case "Rotate":
            return Operation(matrix=_rotation(sign * level * most.degrees, height, width))
        case "Posterize":
            return Operation(mask=256 - 2 ** round(level * most.bits))
        case "Solarize":
            return Operation(threshold=math.ceil(round(255 - 255 * level, 6)))
        case "Invert":
            return Operation(threshold=0)
        case "AutoContrast":
            return Operation(stretch=True)
        case "Equalize":
            return Operation(equalize=True)
    raise ValueError(f"{name} is no operation")


def table(operations: list[Operation]) -> Operation:
    """One row for each, in arrays that a device can pick from."""
    columns = (np.array(column) for column in zip(*operations, strict=True))
    return Operation(*(x.astype(np.float32) if x.dtype == np.float64 else x for x in columns))


def in_turn(
    image: UInt8[Array, "h w c"], rows: Operation, indices: Int[Array, " n"]
) -> UInt8[Array, "h w c"]:
    """The image after these operations of a table, in their order.

    In a loop, so that XLA does not compute pixels of one operation again for every use in the next.
    """

    def one(image: Array, index: Array) -> tuple[Array, None]:
        return apply(image, Operation(*(jnp.asarray(column)[index] for column in rows))), None

    return jax.lax.scan(one, image, indices)[0]


def apply(image: UInt8[Array, "h w c"], op: Operation) -> UInt8[Array, "h w c"]:
    """The image after one operation. Which of the three parts comes first decides cost alone."""
    return _blended(_moved(_relevelled(image, op), op.matrix), op)


def _pixels(level: float, side: int, most: Ranges) -> int:
    return int(level * (side * 150 / 331 if most.shift is None else most.shift))


def _rotation(degrees: float, height: int, width: int) -> tuple[int, ...]:
    """Counter-clockwise about the centre; with Pillow's rounding, so that no pixel differs."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return _fixed(cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y)


def _fixed(a: float, b: float, c: float, d: float, e: float, f: float) -> tuple[int, ...]:
    """`x' = a x + b y + c`, `y' = d x + e y + f`, from centre to centre of pixels."""
    values = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return tuple(math.floor(value * FIXED + 0.5) for value in values)


def _moved(image: Array, matrix: Int[Array, "6"]) -> Array:
    """The nearest pixel; where there is none, black."""
    a, b, c, d, e, f = matrix
    y, x = jnp.arange(image.shape[0])[:, None], jnp.arange(image.shape[1])
    rows, columns = (d * x + e * y + f) >> 16, (a * x + b * y + c) >> 16
    return image.at[rows, columns].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _blended(image: Array, op: Operation) -> Array:
    """`other + factor · (image - other)`, cut to [0, 255], fractions cut off."""
    whole = image.astype(jnp.int32)
    plain = grey(whole)
    pixels = plain.size
    others = (0, (2 * plain.sum() + pixels) // (2 * pixels), plain, _smooth(whole))
    other = jax.lax.select_n(op.towards, *(jnp.broadcast_to(x, image.shape) for x in others))
    # Pillow rounds the product to float32 before it adds. Compilers fuse the two where they can,
    # which would round once. The sum of the products with both halves of the factor, which are
    # exact, is the rounded product either way.
    coarse = jnp.round(op.factor * 2048) / 2048
    gap = (whole - other).astype(jnp.float32)
    blend = other + (coarse * gap + (op.factor - coarse) * gap)
    return jnp.clip(blend, 0, 255).astype(jnp.uint8)


def grey(image: Int[Array, "h w c"]) -> Int[Array, "h w 1"]:
    """Luma of ITU-R 601-2 in fixed point; grey images are their own."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.split(image, 3, axis=-1)
    return (19595 * red + 38470 * green + 7471 * blue + FIXED // 2) >> 16


def _smooth(image: Int[Array, "h w c"]) -> Array:
    """The mean of each pixel's neighbourhood of three by three, in which it counts five times.

    The border stays as it is.
    """
    height, width, _ = image.shape
    around = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    rows = around[:-2] + around[1:-1] + around[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return jnp.where(inner, jax.lax.div(2 * sums + 13, 26), image)


def _relevelled(image: Array, op: Operation) -> Array:
    """Every level replaced by what a table says, one for each channel: a quotient."""
    channels = image.shape[-1]
    place = image + 256 * jnp.arange(channels)  # channel after channel
    counts = jnp.zeros(channels * 256, jnp.int32).at[place].add(1).reshape(channels, 256)
    levels, seen = jnp.arange(256), counts > 0
    plain = jnp.where(levels < op.threshold, levels, 255 - levels) & op.mask

    low = jnp.where(seen, levels, 255).min(axis=1, keepdims=True)
    high = jnp.where(seen, levels, 0).max(axis=1, keepdims=True)
    stretches = op.stretch & (high > low)

    # In proportion to how many pixels are darker; the brightest level's own do not count.
    darker = jnp.cumsum(counts, axis=1) - counts
    step = jnp.where(seen, darker, 0).max(axis=1, keepdims=True) // 255
    equalizes = op.equalize & (step > 0)

    above = jnp.where(stretches, 255 * (levels - low), plain)
    above = jnp.where(equalizes, darker + step // 2, above)
    under = jnp.where(equalizes, step, jnp.where(stretches, high - low, 1))
    # The loop keeps XLA from repeating the division for every pixel that looks the table up.
    table = jax.lax.map(lambda channel: channel[0] // channel[1], (above, under))
    return jnp.minimum(table.reshape(-1)[place], 255).astype(jnp.uint8)
