"""One encoded image to pixels. Knows Pillow; nothing of files, data sets or labels.

TFDS turns palette, CMYK and grey-with-alpha images into wrong ones, and Pillow clips sixteen bits
to eight, so we say ourselves what each kind of file means:

- Colours are those stored, as torchvision and timm read them: transparency is left out, and an
  orientation that a camera noted in EXIF is not followed.
- Sixteen bits of grey are divided by 257, so that white stays white.
- Of an animation or a file of several pages the first picture counts.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Size = tuple[int, int]
"""Height and width."""


class BrokenImage(ValueError):
    """An image that cannot be read; the message names it."""


@dataclass(frozen=True)
class Decoder:
    """Encoded bytes to uint8 `[H, W, C]`."""

    channels: int
    """3 for colour, 1 for grey."""
    size: Size | None = None
    """Scale the image until it covers this, and cut out the middle; None: leave it as it is.

    Pixels are averaged as torchvision's antialiased bilinear filter does. A JPEG more than twice as
    large is first halved, once or more, by its own decoder, which is several times faster; at least
    twice the size remains for the filter.
    """

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        """The pixels; BrokenImage with the name if they cannot be had."""
        try:
            with Image.open(io.BytesIO(data)) as image:
                if self.size is not None:
                    height, width = self.size
                    image.draft(None, (2 * width, 2 * height))
                return self._pixels(image)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            raise BrokenImage(f"{name} is not readable as an image: {_reason(error)}.") from error

    def attempt(self, data: bytes, name: str) -> "np.ndarray | BrokenImage":
        """The pixels, or why they cannot be had."""
        try:
            return self(data, name)
        except BrokenImage as error:
            return error

    def of_array(self, images: np.ndarray) -> np.ndarray:
        """Decoded images uint8 `[n, H, W, C]`, brought to the same channels and size."""
        if images.shape[-1] == self.channels and self.size in (None, images.shape[1:3]):
            return images
        return np.stack(
            [
                self._pixels(Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x))
                for x in images
            ]
        )

    def _pixels(self, image: Image.Image) -> np.ndarray:
        plain = _eight_bits(image)
        if "transparency" in plain.info and plain.mode == "P":
            plain = plain.convert("RGBA")  # Pillow cannot leave its transparency out at once
        plain = plain.convert("L" if self.channels == 1 else "RGB")
        if self.size is not None and self.size != (plain.height, plain.width):
            plain = ImageOps.fit(plain, self.size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(plain)
        return pixels.reshape(*pixels.shape[:2], self.channels)


def image_size(data: bytes, name: str) -> Size:
    """Height and width, as the head of the file says; BrokenImage if it says nothing."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except Exception as error:
        raise BrokenImage(f"{name} is not readable as an image: {_reason(error)}.") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are {image.mode!r}, of no known range; store 8 or 16 bits")
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "of no known format"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
