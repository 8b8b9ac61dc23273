"""Encoded pictures -> uint8 arrays, in a thread pool (Pillow lets go of the GIL while it decodes)."""

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from einops import repeat
from PIL import Image, ImageOps
from tqdm import tqdm

from data.dataset import DataError, channels_first

CHUNK = 64  # pictures a task; one task a picture would spend as long on queueing as on a 32x32 JPEG
PROGRESS_AFTER_S = 1.0


@dataclass(frozen=True)
class EncodedPicture:
    """A picture still encoded (the file's bytes, or its path) and the words that say where it came from."""

    where: str
    content: bytes | Path


def decode_pictures(pictures: Iterable[EncodedPicture], total: int, description: str) -> npt.NDArray[np.uint8]:
    """Decode `total` pictures into (N, C, H, W): C is 1 when every one of them is grey and 3 otherwise.

    A progress bar named `description` appears on stderr when this takes longer than a second and stderr is a terminal.

    Raises:
        DataError: a picture cannot be decoded, or its size is not that of the first; names the file and the row.
    """
    decoded: npt.NDArray[np.uint8] | None = None  # (N, H, W, C)
    first_where = ""
    position = 0
    bar = tqdm(total=total, desc=description, unit="picture", delay=PROGRESS_AFTER_S, disable=None, leave=False)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for where, pixels in _decode_in_order(pool, iter(pictures)):
            if decoded is None:
                decoded = np.empty((total, *pixels.shape), dtype=np.uint8)
                first_where = where
            if pixels.shape[:2] != decoded.shape[1:3]:
                raise DataError(
                    f"{where}: picture is {pixels.shape[0]}x{pixels.shape[1]} (height x width); expected "
                    f"{decoded.shape[1]}x{decoded.shape[2]} like {first_where}: all pictures must share one size"
                )
            if pixels.shape[2] > decoded.shape[3]:
                decoded = repeat(decoded, "n h w 1 -> n h w c", c=pixels.shape[2]).copy()
            decoded[position] = pixels  # a grey picture spreads over R, G and B
            position += 1
            bar.update()
    if decoded is None:
        raise DataError(f"{description}: no pictures; expected at least one")
    return channels_first(decoded)


def decode_picture(picture: EncodedPicture) -> npt.NDArray[np.uint8]:
    """One picture as (H, W, 1) when it is grey and (H, W, 3) otherwise; transparency is dropped.

    Raises:
        DataError: Pillow cannot read it.
    """
    source = io.BytesIO(picture.content) if isinstance(picture.content, bytes) else picture.content
    try:
        with Image.open(source) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image)
    except Exception as error:  # a damaged file surfaces as OSError, SyntaxError, ValueError, struct.error, ...
        reason = str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not in a format that Pillow knows"  # its own message prints a memory address
        raise DataError(f"{picture.where}: picture cannot be decoded: {reason or type(error).__name__}") from error


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[:, :, None]
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels are 32-bit (mode {image.mode}); expected 8 or 16 bits a channel")
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))[:, :, None]
    return np.asarray(image.convert("RGB"))


def _decode_in_order(
    pool: ThreadPoolExecutor, pictures: Iterator[EncodedPicture]
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    # A round of tasks at a time, so that no more than a round's encoded pictures are held.
    round_size = CHUNK * 4 * (os.cpu_count() or 1)
    while batch := list(islice(pictures, round_size)):
        chunks = [batch[start : start + CHUNK] for start in range(0, len(batch), CHUNK)]
        for chunk, arrays in zip(chunks, pool.map(_decode_chunk, chunks), strict=True):
            for picture, pixels in zip(chunk, arrays, strict=True):
                yield picture.where, pixels


def _decode_chunk(chunk: list[EncodedPicture]) -> list[npt.NDArray[np.uint8]]:
    return [decode_picture(picture) for picture in chunk]
