"""Images of every kind become uint8 channels; what cannot be decoded is named."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.data.image_files import image, png
from tidepool.data.dataset import DataError
from tidepool.data.decoding import THREADS_FROM_BYTES, EncodedItem, _grey_or_rgb, decode_image, decode_images


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> EncodedItem:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return EncodedItem("here", buffer.getvalue())


def test_rgb_and_grey_keep_their_pixels() -> None:
    rgb, grey = image(1), image(2, channels=1)
    np.testing.assert_array_equal(decode_image(EncodedItem("here", png(rgb))), rgb.transpose(2, 0, 1))
    np.testing.assert_array_equal(decode_image(EncodedItem("here", png(grey))), grey[None])


def _tiff(data: bytes, width: int, bits: int, *, white_is_zero: bool) -> bytes:
    """A grey TIFF of one row of pixels with `bits` bits, as Pillow reads them and writes none."""
    size = [(256, width), (257, 1), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)]
    tags = [*size, (273, 8), (277, 1), (278, 1), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


DEEP = np.random.default_rng(6).integers(0, 65536, (6, 5), dtype=np.uint16)
RGBA = image(3, channels=4)
PALETTE = Image.fromarray(image(4)).quantize(8)
BITS = image(5, channels=1) > 127


def _of_bytes(mode: str, pixels: np.ndarray) -> Image.Image:
    return Image.frombytes(mode, (5, 6), pixels.tobytes())


def _lab() -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    made = ImageCms.profileToProfile(Image.fromarray(image(1)), srgb, lab, outputMode="LAB")
    assert made is not None
    return made


def _shades(image: Image.Image) -> np.ndarray:
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


MODES: dict[str, tuple[Image.Image, str, np.ndarray]] = {
    # mode: an image of it, the format that keeps the mode, and the pixels expected
    "1": (Image.fromarray(BITS), "PNG", BITS[None] * np.uint8(255)),
    "L": (_of_bytes("L", DEEP.astype(np.uint8)), "TIFF", DEEP[None].astype(np.uint8)),
    "LA": (_of_bytes("LA", RGBA[:, :, :2]), "PNG", RGBA[None, :, :, 0]),
    "P": (PALETTE, "PNG", _shades(PALETTE.convert("RGB"))),
    "RGB": (Image.fromarray(image(1)), "PNG", _shades(Image.fromarray(image(1)))),
    "RGBA": (Image.fromarray(RGBA), "PNG", RGBA[:, :, :3].transpose(2, 0, 1)),
    "CMYK": (_of_bytes("CMYK", RGBA), "TIFF", _shades(_of_bytes("CMYK", RGBA).convert("RGB"))),
    "YCbCr": (_of_bytes("YCbCr", image(1)), "TIFF", _shades(_of_bytes("YCbCr", image(1)).convert("RGB"))),
    "LAB": (_lab(), "TIFF", _shades(_lab().convert("RGB"))),
    "I;16": (_of_bytes("I;16", DEEP), "PNG", DEEP[None] >> 8),
    "I;16B": (_of_bytes("I;16B", DEEP.astype(">u2")), "TIFF", DEEP[None] >> 8),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", [1, 6], ids=["upright", "turned"])
def test_every_mode_is_the_same_pixels_resized_or_not(mode: str, orientation: int) -> None:
    made, kind, expected = MODES[mode]
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = _encoded(made, kind, **({"exif": exif} if orientation != 1 else {}))
    assert isinstance(encoded.content, bytes)
    assert Image.open(io.BytesIO(encoded.content)).mode == mode
    shown = np.rot90(expected, -1, (1, 2)) if orientation == 6 else expected
    plain = decode_image(encoded)
    np.testing.assert_array_equal(plain, shown)
    resized = decode_image(encoded, 3)
    fitted = ImageOps.fit(Image.fromarray(np.squeeze(plain.transpose(1, 2, 0))), (3, 3), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, _shades(fitted))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N", "HSV", "La", "PA", "RGBa", "RGBX"])
def test_modes_that_few_files_have_end_as_grey_or_rgb(mode: str) -> None:
    if mode.startswith("I;16"):
        shown = _of_bytes(mode, DEEP.astype(">u2" if mode[-1] == "B" else "<u2"))
        np.testing.assert_array_equal(np.asarray(_grey_or_rgb(shown)), DEEP >> 8)
    else:
        through = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode, "RGB")
        shown = (
            Image.fromarray(RGBA).convert("LA" if mode == "La" else "RGBA" if mode != "HSV" else "RGB").convert(mode)
        )
        expected = shown.convert(through).convert("L" if mode == "La" else "RGB")
        np.testing.assert_array_equal(np.asarray(_grey_or_rgb(shown)), np.asarray(expected))


@pytest.mark.parametrize("size", [None, 1])
def test_a_transparent_pixel_counts_with_its_colour_in_full(size: int | None) -> None:
    red = np.zeros((2, 2, 4), dtype=np.uint8)
    red[:, 0] = (200, 0, 0, 255)
    red[:, 1] = (100, 80, 0, 0)  # transparent, all of it
    mean = [150, 40, 0]
    assert decode_image(_encoded(Image.fromarray(red)), size).reshape(3, -1).mean(1).tolist() == mean
    palette = Image.fromarray(np.array([[0, 1], [0, 1]], dtype=np.uint8)).convert("P")
    palette.putpalette([200, 0, 0, 100, 80, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded = _encoded(palette, "PNG", transparency=bytes([255, 0]))
        assert decode_image(encoded, size).reshape(3, -1).mean(1).tolist() == mean


def test_deep_greys_of_other_files() -> None:
    pgm = b"P5\n5 6\n65535\n" + DEEP.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode_image(EncodedItem("here", pgm)), DEEP[None] >> 8)
    row = DEEP.reshape(1, -1)
    packed = bytes.fromhex("".join(f"{value >> 4:03x}" for value in row[0]))
    twelve = decode_image(EncodedItem("here", _tiff(packed, 30, 12, white_is_zero=False)))
    np.testing.assert_array_equal(twelve[0], row >> 8)
    negative = decode_image(EncodedItem("here", _tiff(row.tobytes(), 30, 16, white_is_zero=True)))
    np.testing.assert_array_equal(negative[0], 255 - (row >> 8))


def test_32_bit_pixels_are_refused() -> None:
    deep = Image.fromarray(np.full((4, 4), 1e6, dtype=np.float32))
    with pytest.raises(DataError, match=r"^here: image cannot be decoded: .*32-bit .*expected 8 or 16 bits"):
        decode_image(_encoded(deep, "TIFF"))


@pytest.mark.parametrize("content", [b"", b"no image at all", png(image(8))[:60]], ids=["empty", "text", "cut off"])
def test_undecodable_bytes_are_named_in_one_line(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^f\.parquet, row 7: image cannot be decoded: ") as caught:
        decode_image(EncodedItem("f.parquet, row 7", content))
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_a_path_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(image(9)))
    np.testing.assert_array_equal(decode_image(EncodedItem("a", tmp_path / "a.png")), image(9).transpose(2, 0, 1))


@pytest.mark.parametrize("side", [8, 96], ids=["in one thread", "in several threads"])
def test_order_is_kept(side: int) -> None:
    pixels = [image(seed, side, side) for seed in range(150)]
    encoded = [EncodedItem(str(seed), png(one)) for seed, one in enumerate(pixels)]
    assert isinstance(encoded[0].content, bytes)
    assert (len(encoded[0].content) >= THREADS_FROM_BYTES) == (side == 96)
    np.testing.assert_array_equal(decode_images(encoded, 150, "many"), np.stack(pixels).transpose(0, 3, 1, 2))


def test_all_grey_is_one_channel_and_one_coloured_image_makes_three() -> None:
    grey = [EncodedItem(str(seed), png(image(seed, channels=1))) for seed in range(3)]
    assert decode_images(grey, 3, "grey").shape == (3, 1, 6, 5)
    mixed = decode_images([grey[0], EncodedItem("rgb", png(image(5))), grey[1]], 3, "mixed")
    assert mixed.shape == (3, 3, 6, 5)
    for row, seed in ((0, 0), (2, 1)):
        np.testing.assert_array_equal(mixed[row], np.stack([image(seed, channels=1)] * 3))
    np.testing.assert_array_equal(mixed[1], image(5).transpose(2, 0, 1))


def test_another_size_is_named_with_the_size_expected() -> None:
    images = [EncodedItem("row 0", png(image(0))), EncodedItem("row 1", png(image(1, height=7)))]
    with pytest.raises(DataError, match=r"^row 1: image is 7x5 \(height x width\); expected 6x5 like row 0"):
        decode_images(images, 2, "pets")


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"^pets: no images; expected at least one$"):
        decode_images([], 0, "pets")
