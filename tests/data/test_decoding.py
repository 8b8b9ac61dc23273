"""Images of every kind become uint8 channels; what cannot be decoded is named."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import image, png
from tidepool.data.dataset import DataError
from tidepool.data.decoding import THREADS_FROM_BYTES, EncodedItem, decode_image, decode_images


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> EncodedItem:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return EncodedItem("here", buffer.getvalue())


def test_rgb_and_grey_keep_their_pixels() -> None:
    rgb, grey = image(1), image(2, channels=1)
    np.testing.assert_array_equal(decode_image(EncodedItem("here", png(rgb))), rgb.transpose(2, 0, 1))
    np.testing.assert_array_equal(decode_image(EncodedItem("here", png(grey))), grey[None])


def test_transparency_is_dropped() -> None:
    rgba = image(3, channels=4)
    np.testing.assert_array_equal(decode_image(EncodedItem("here", png(rgba))), rgba[:, :, :3].transpose(2, 0, 1))


def test_palette_black_and_white_and_16_bit() -> None:
    palette = Image.fromarray(image(4)).quantize(8)
    np.testing.assert_array_equal(
        decode_image(_encoded(palette)), np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )
    bits = image(5, channels=1) > 127
    np.testing.assert_array_equal(decode_image(_encoded(Image.fromarray(bits))), bits[None] * np.uint8(255))
    deep = np.random.default_rng(6).integers(0, 65536, (6, 5), dtype=np.uint16)
    np.testing.assert_array_equal(decode_image(_encoded(Image.fromarray(deep))), (deep >> 8)[None])


def test_camera_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    assert decode_image(_encoded(Image.fromarray(image(7)), "JPEG", exif=exif)).shape == (3, 5, 6)


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
