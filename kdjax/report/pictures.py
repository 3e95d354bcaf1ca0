"""Images as data URIs: examples, and matrices too large for a table."""

import base64
import io

import numpy as np
from jaxtyping import Int
from PIL import Image

EXAMPLE_SIZE = 96
"""Longest side of an example, in pixels; smaller images stay as they are."""
SMALL = 40
"""Longest side of an image that is shown pixel by pixel."""
MATRIX_SIZE = 250
"""Longest side of a matrix image, in cells; larger matrices are summed in blocks."""

RIGHT = (20, 130, 110)
WRONG = (205, 100, 20)


def example(encoded: str) -> tuple[str, bool]:
    """A PNG in base64 as a data URI, shrunk where it is large; empty if it cannot be read.

    Also says whether it has so few pixels that they should stay visible.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as file:
            image = file.convert("L" if file.mode == "L" else "RGB")
    except (OSError, ValueError, SyntaxError):  # Pillow calls a broken PNG a SyntaxError
        return "", False
    image.thumbnail((EXAMPLE_SIZE, EXAMPLE_SIZE))
    return _uri(image), max(image.size) <= SMALL


def matrix(counts: Int[np.ndarray, "rows columns"]) -> str:
    """Shares of each row as opacity, so that the image lies on any background.

    The diagonal has one colour and the rest another. Opacity grows with the square root of the
    share: rare mistakes stay visible.
    """
    counts = _blocks(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((*counts.shape, 4), np.uint8)
    pixels[..., :3] = WRONG
    np.einsum("iic->ic", pixels)[:, :3] = RIGHT
    pixels[..., 3] = np.round(255 * np.sqrt(share))
    return _uri(Image.fromarray(pixels, "RGBA"))


def _blocks(counts: Int[np.ndarray, "rows columns"]) -> Int[np.ndarray, "r c"]:
    size = -(-len(counts) // MATRIX_SIZE)
    starts = np.arange(0, len(counts), size)
    return np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
