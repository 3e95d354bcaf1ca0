"""What is in a data set, for people: sizes, classes, colours, and a page of its images."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kdjax.data.images import BrokenImage, Decoder
from kdjax.data.reading import Encoded
from kdjax.data.sources import Stored
from kdjax.data.splits import Piece
from kdjax.data.stored import Pixels
from kdjax.progress import tracked

MEASURED = 50_000
"""Images whose pixels are looked at, spread evenly over a split."""
CHUNK = 256
ROWS, COLUMNS = 10, 12
"""Classes, and images of each, on the page."""
CELL, GAP, NAME = 96, 4, 200
"""Pixels of an image on the page, between two, and of the longest name."""


@dataclass(frozen=True)
class Survey:
    """Of one split."""

    split: str
    size: int
    per_class: tuple[int, int] | None
    """Examples of the smallest and of the largest class; None: no labels."""
    measured: int
    """Images that were looked at for what follows."""
    shapes: Mapping[tuple[int, int], int]
    """Heights and widths, and how many have them."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of each channel, in [0, 1]."""
    broken: tuple[str, ...]
    """Images that cannot be read."""
    examples: Mapping[int, Sequence[np.ndarray]]
    """A few images of the first classes."""


def survey(stored: Stored, split: str) -> Survey:
    """Look at all labels and at many images of a split."""
    size = stored.sizes[split]
    chosen = np.unique(np.linspace(0, size - 1, min(size, MEASURED)).astype(np.int64))
    part = stored.select([Piece(split, 0, size)])
    labels = part.labels if split not in stored.unlabelled else np.empty(0, np.int32)
    counts = np.bincount(labels, minlength=len(stored.classes))
    sums, squares, pixels = np.zeros(stored.channels), np.zeros(stored.channels), 0
    shapes: dict[tuple[int, int], int] = {}
    examples: dict[int, list[np.ndarray]] = {}
    broken = []
    starts = range(0, len(chosen), CHUNK)
    for start in tracked(starts, len(chosen), f"{stored.name}: {split}", CHUNK):
        for image, label in _read(part, chosen[start : start + CHUNK], stored.channels):
            if isinstance(image, BrokenImage):
                broken.append(str(image))
                continue
            height, width, _ = image.shape
            shapes[height, width] = shapes.get((height, width), 0) + 1
            flat = image.reshape(-1, stored.channels)
            sums += flat.sum(0, dtype=np.int64)
            squares += np.square(flat, dtype=np.int32).sum(0, dtype=np.int64)
            pixels += height * width
            row = max(label, 0)
            if row < ROWS and len(examples.setdefault(row, [])) < COLUMNS:
                examples[row].append(image)
    mean = sums / max(pixels, 1) / 255
    std = np.sqrt(np.maximum(squares / max(pixels, 1) / 255**2 - mean**2, 0))
    return Survey(
        split=split,
        size=size,
        per_class=(int(counts.min()), int(counts.max())) if len(labels) else None,
        measured=len(chosen) - len(broken),
        shapes=dict(sorted(shapes.items(), key=lambda item: -item[1])),
        mean=tuple(float(x) for x in mean),
        std=tuple(float(x) for x in std),
        broken=tuple(broken),
        examples=examples,
    )


def _read(
    part: Encoded | Pixels, chosen: np.ndarray, channels: int
) -> Sequence[tuple[np.ndarray | BrokenImage, int]]:
    if isinstance(part, Pixels):
        return list(zip(part.images[chosen], map(int, part.labels[chosen]), strict=True))
    encoded, labels = part.fetch([int(i) for i in chosen])
    names = [part.name(int(i)) for i in chosen]
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        images = pool.map(Decoder(channels).attempt, encoded, names)
        return list(zip(images, map(int, labels), strict=True))


def contact_sheet(stored: Stored, found: Survey, path: Path) -> None:
    """A page of images: a row for each of the first classes, with its name."""
    rows = sorted(found.examples)
    columns = max((len(found.examples[row]) for row in rows), default=1)
    font = ImageFont.load_default(15)
    names = [stored.classes[row] if found.per_class else "no labels" for row in rows]
    names = [_shortened(name, font) for name in names]
    left = round(max(map(font.getlength, names), default=0)) + 4 * GAP
    step = CELL + GAP
    page = Image.new("RGB", (left + columns * step, len(rows) * step + GAP), "white")
    draw = ImageDraw.Draw(page)
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        middle = GAP + y * step + CELL // 2
        draw.text((left - 2 * GAP, middle), name, "black", font, anchor="rm")
        for x, image in enumerate(found.examples[row]):
            page.paste(_thumbnail(image), (left + x * step, GAP + y * step))
    page.save(path, "PNG")


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= NAME:
        return text
    while text and font.getlength(f"{text}…") > NAME:
        text = text[:-1]
    return f"{text}…"


def _thumbnail(image: np.ndarray) -> Image.Image:
    """Scaled into a cell with its shape kept; small ones without smoothing, to show each pixel."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    scale = CELL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = scale >= 2
    picture = picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(picture, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell
