"""Every kind of image file comes out as the picture it shows."""

import io

import numpy as np
import pytest
from PIL import Image

from kdjax.data.images import BrokenImage, Decoder, image_size

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 160, 30]]], np.uint8)
BIG = COLOURS.repeat(8, 0).repeat(8, 1)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data, channels=3, size=None):
    return Decoder(channels, size)(data, "x")


def test_colours_of_every_mode_are_those_shown():
    rgb = Image.fromarray(BIG)
    palette = rgb.quantize(4)
    assert palette.mode == "P"
    alpha = Image.fromarray(np.dstack([BIG, np.full(BIG.shape[:2], 77, np.uint8)]))
    for name, data in {
        "RGB": encoded(rgb),
        "palette": encoded(palette),
        "palette with transparency": encoded(palette, transparency=bytes([0, 128, 255, 255])),
        "palette with a transparent colour": encoded(palette, transparency=1),
        "RGBA": encoded(alpha),
        "BMP": encoded(rgb, "BMP"),
        "TIFF": encoded(rgb, "TIFF"),
        "GIF": encoded(palette, "GIF"),
        "WebP": encoded(rgb, "WEBP", lossless=True),
    }.items():
        np.testing.assert_array_equal(decoded(data), BIG, name)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpegs_of_other_colour_models(mode):
    data = encoded(Image.fromarray(BIG).convert(mode), "JPEG", quality=100, subsampling=0)
    near = decoded(data).astype(int) - BIG
    assert np.abs(near).max() < 12


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_is_repeated_or_kept(mode):
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    data = encoded(Image.fromarray(grey).convert(mode))
    np.testing.assert_array_equal(decoded(data), grey[..., None].repeat(3, -1))
    np.testing.assert_array_equal(decoded(data, channels=1), grey[..., None])


def test_colours_are_made_grey():
    assert decoded(encoded(Image.fromarray(COLOURS)), 1).ravel().tolist() == [76, 150, 29, 124]


def test_sixteen_bits_are_scaled_and_not_clipped():
    wide = np.array([[0, 256, 32768], [65535, 385, 386]], np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decoded(encoded(Image.fromarray(wide), kind), 1)
        np.testing.assert_array_equal(pixels[..., 0], np.round(wide / 257).astype(np.uint8))


def test_pixels_without_a_range_are_refused():
    data = encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    with pytest.raises(BrokenImage, match=r"x is not readable .*'F', of no known range"):
        decoded(data)


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (10, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decoded(data).max() == 10, kind


def test_an_orientation_noted_by_a_camera_is_not_followed():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(BIG[:8])
    assert decoded(encoded(image, exif=exif)).shape == (8, 16, 3)


def test_a_size_is_covered_and_the_middle_cut_out():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 200
    image[10:30, 30:50] = 100
    pixels = decoded(encoded(Image.fromarray(image)), size=(20, 20))
    assert pixels.shape == (20, 20, 3)
    assert (pixels[0, 1:-1] == 200).all()  # the black sides are gone, but for what the filter sees
    assert (pixels[6:14, 6:14] == 100).all()


def test_a_large_jpeg_is_halved_by_its_decoder_to_nearly_the_same():
    rows, columns = np.mgrid[:512, :384]
    smooth = np.dstack([rows / 2, columns / 2, (rows + columns) / 4]).astype(np.uint8)
    data = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    exact = encoded(Image.fromarray(decoded(data)))  # the same pixels, but no JPEG
    ours, plain = decoded(data, size=(32, 32)), decoded(exact, size=(32, 32))
    assert np.abs(ours.astype(int) - plain).max() <= 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_what_cannot_be_read_is_named(kind, damage):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    data = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>"}[damage]
    with pytest.raises(BrokenImage, match=r"cat/1.jpg is not readable as an image: "):
        Decoder(3)(data, "cat/1.jpg")
    with pytest.raises(BrokenImage, match=r"cat/1.jpg"):
        image_size(data if damage != "cut" else data[:6], "cat/1.jpg")


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BrokenImage, match=r"decompression bomb"):
        decoded(encoded(Image.fromarray(BIG)))


def test_arrays_are_treated_like_files():
    two = np.stack([BIG, BIG[::-1]])
    decoder = Decoder(1, (4, 4))
    expected = [decoded(encoded(Image.fromarray(x)), 1, (4, 4)) for x in two]
    np.testing.assert_array_equal(decoder.of_array(two), expected)
    assert Decoder(3).of_array(two) is two
