"""Encoded images -> uint8 arrays, in a thread pool where the images are large enough for threads to help."""

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from einops import rearrange, repeat
from PIL import Image, ImageOps
from tqdm import tqdm

from tidepool.data.dataset import DataError

# Pillow lets go of the GIL only inside its codecs, so for smaller images than this threads mostly hand the GIL to and
# fro. On 2 cores 10,000 32x32 JPEGs took 1.0 s in one thread and 1.6 s in two; 3,000 of 128x128 took 0.99 s and 0.61 s.
THREADS_FROM_BYTES = 8192
CHUNK = 16  # images a task
PROGRESS_AFTER_S = 1.0
GREY_MODES = ("1", "L", "LA", "La")
BITS_A_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF 6.0, and a value of the second


@dataclass(frozen=True)
class EncodedItem:
    """An image or audio file still encoded (a file's bytes, or its path) and the words that say where it came from."""

    where: str
    content: bytes | Path


def decode_images(
    images: Iterable[EncodedItem], total: int, description: str, *, image_size: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode `total` images into (N, C, H, W): C is 1 when every one of them is grey and 3 otherwise.

    Each is brought to `image_size` x `image_size` (see `decode_image`), or all must share one size. A progress bar
    named `description` appears on stderr when this takes longer than a second and stderr is a terminal.

    Raises:
        DataError: an image cannot be decoded, or its size is not that of the first; names the file and the row.
    """
    decoded: npt.NDArray[np.uint8] | None = None
    first_where = ""
    position = 0
    bar = tqdm(total=total, desc=description, unit="image", delay=PROGRESS_AFTER_S, disable=None, leave=False)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for where, pixels in _decode_in_order(pool, iter(images), image_size):
            if decoded is None:
                decoded = np.empty((total, *pixels.shape), dtype=np.uint8)
                first_where = where
            if pixels.shape[1:] != decoded.shape[2:]:
                raise DataError(
                    f"{where}: image is {pixels.shape[1]}x{pixels.shape[2]} (height x width); expected "
                    f"{decoded.shape[2]}x{decoded.shape[3]} like {first_where}: all images must share one size, "
                    "or --image_size bring them to one"
                )
            if pixels.shape[0] > decoded.shape[1]:
                decoded = repeat(decoded, "n 1 h w -> n c h w", c=pixels.shape[0]).copy()
            decoded[position] = pixels  # a grey image spreads over R, G and B
            position += 1
            bar.update()
    if decoded is None:
        raise DataError(f"{description}: no images; expected at least one")
    return decoded


def decode_image(encoded: EncodedItem, image_size: int | None = None) -> npt.NDArray[np.uint8]:
    """One image as (1, H, W) when it is grey and (3, H, W) otherwise, upright as its EXIF orientation says.

    It is brought to 8-bit grey or RGB first, resized or not: of 16 bits the upper 8 are kept, and transparency is
    dropped, so that a pixel counts with the colour that is stored for it however transparent it is. With `image_size`
    the shorter side is then scaled to that many pixels (bilinear, with a filter that widens with the reduction, so that
    nothing is skipped) and the middle square is kept: the usual rule for images of mixed sizes.

    Raises:
        DataError: Pillow cannot read it, or its pixels have 32 bits.
    """
    source = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    try:
        with Image.open(source) as image:
            ImageOps.exif_transpose(image, in_place=True)
            shades = _grey_or_rgb(image)
            if image_size is not None:
                shades = ImageOps.fit(shades, (image_size, image_size), Image.Resampling.BILINEAR)
            return rearrange(np.atleast_3d(np.asarray(shades)), "h w c -> c h w")
    except Exception as error:  # a damaged file surfaces as OSError, SyntaxError, ValueError, struct.error, ...
        reason = str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not in a format that Pillow knows"  # its own message prints a memory address
        raise DataError(f"{encoded.where}: image cannot be decoded: {reason or type(error).__name__}") from error


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image, of whichever mode, as 8-bit grey (L) or RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # a PGM has at most 16 bits
        return Image.fromarray(_upper_8_bits(image))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels are 32-bit or signed (mode {image.mode}); expected 8 or 16 bits a channel")
    if image.mode in ("La", "RGBa") or "transparency" in image.info:  # colours multiplied by alpha; palettes with one
        image = image.convert("LA" if image.mode in GREY_MODES else "RGBA")
    return image.convert("L" if image.mode in GREY_MODES else "RGB")


def _upper_8_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(H, W) of an image with 16 bits a pixel. Pillow leaves 12-bit TIFF pixels, and those with 0 for white, as they
    are in the file.
    """
    tags = getattr(image, "tag_v2", {})
    (bits,) = tags.get(BITS_A_SAMPLE, (16,))
    shades = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return 255 - shades if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else shades


def _decode_in_order(
    pool: ThreadPoolExecutor, images: Iterator[EncodedItem], image_size: int | None
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    # A round of tasks at a time, so that no more than a round's encoded images are held.
    round_size = CHUNK * 4 * (os.cpu_count() or 1)
    while batch := list(islice(images, round_size)):
        chunks = [batch[start : start + CHUNK] for start in range(0, len(batch), CHUNK)]
        threads_help = sum(map(_encoded_size, batch)) >= THREADS_FROM_BYTES * len(batch)
        decode = partial(_decode_chunk, image_size=image_size)
        results = pool.map(decode, chunks) if threads_help else map(decode, chunks)
        for chunk, arrays in zip(chunks, results, strict=True):
            for encoded, pixels in zip(chunk, arrays, strict=True):
                yield encoded.where, pixels


def _encoded_size(encoded: EncodedItem) -> int:
    return len(encoded.content) if isinstance(encoded.content, bytes) else encoded.content.stat().st_size


def _decode_chunk(chunk: list[EncodedItem], image_size: int | None) -> list[npt.NDArray[np.uint8]]:
    return [decode_image(encoded, image_size) for encoded in chunk]
