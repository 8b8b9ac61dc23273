"""Encoded audio (WAV, FLAC, OGG, MP3) -> samples, by libsndfile; what is cut short is refused, not shortened.

libsndfile reads what it finds and says nothing of what is missing, so a file is held to what it says of itself:

- WAV: the `data` chunk has as many bytes as it claims. That of a stream, whose writer could not go back to fill in the
  sizes (0, or about 2 GiB and more), reaches to the end of the file.
- OGG: the last page is whole and marked as the stream's end (RFC 3533, section 6).
- FLAC, and MP3 with a Xing or Info header: as many samples as are counted there. A FLAC stream counts none, but its
  decoder notices a frame that is cut.
- MP3 without such a header: nothing tells a file that was cut between two frames from a shorter one.
"""

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ByteOrder = Literal["little", "big"]

# A header that claims more than these is damaged, and resampling by it would take all memory.
HIGHEST_RATE = 768_000
LONGEST_SECONDS = 600
FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3"}
"""libsndfile's names for the formats that are read, and everybody's."""
MARKS = (b"RIFF", b"RIFX", b"OggS", b"fLaC")  # how files begin; MP3 has no mark
EXPECTED = "expected " + ", ".join(dict.fromkeys(FORMATS.values()))
BLOCK = 65_536  # samples decoded at once
STREAM_BYTES = 0x7FFF_0000  # sox and ffmpeg write no less for "until the end"
UNCOUNTED = 2**62  # samples: libsndfile gives more where the file does not say how many it has
BLOCK_CODECS = (0x02, 0x11, 0x31)  # WAV's numbers of Microsoft's ADPCM, IMA ADPCM and GSM 6.10
LAST_PAGE = 4  # the flag of an OGG page


def read_sound(content: bytes) -> tuple[int, npt.NDArray[np.float64]]:
    """A file's sampling rate in Hz and its samples (samples,), the mean over channels, full scale being -1..1.

    Raises:
        ValueError: it is none of `FORMATS`, damaged, cut short, empty, longer than `LONGEST_SECONDS`, sampled faster
            than `HIGHEST_RATE`, or holds NaN or infinity.
    """
    from soundfile import LibsndfileError  # cffi and libsndfile take a tenth of a second, so only when there is audio

    if not content:
        raise ValueError(f"it is empty; {EXPECTED}")
    most = UNCOUNTED
    if content.startswith((b"RIFF", b"RIFX")):
        content, most = _checked_wav(content)
    elif content.startswith(b"OggS"):
        _require_last_page(content)
    try:
        with _source(content) as source, closing(_once_through()(source, closefd=False)) as file:
            return file.samplerate, _mono(file)[:most]
    except LibsndfileError as error:  # its text alone: the whole message holds a memory address
        reason = _reason(error) if content.startswith(MARKS) else "format not recognised"
        raise ValueError(f"{reason}; {EXPECTED}, and it begins with {content[:4]!r}") from error


def _mono(file: Any) -> npt.NDArray[np.float64]:
    """The mean over channels of what the open `file` holds."""
    if file.format not in FORMATS:
        raise ValueError(f"it is {file.format_info}; {EXPECTED}")
    _require_rate(file.samplerate)
    parts: list[npt.NDArray[np.float64]] = []
    count = 0
    while len(block := _next_block(file)):
        if not np.isfinite(block).all():
            raise ValueError("it holds NaN or infinity; expected finite samples")
        parts.append(block.mean(axis=1))
        count += len(block)
        if count > LONGEST_SECONDS * file.samplerate:
            raise ValueError(f"it is longer than {LONGEST_SECONDS} s at {file.samplerate} Hz; expected at most that")
    if count < file.frames < UNCOUNTED:
        raise ValueError(f"it is cut short: {count} samples; expected {file.frames}")
    if not count:
        raise ValueError("it holds no samples; expected at least one")
    return np.concatenate(parts)


def _next_block(file: Any) -> npt.NDArray[np.float64]:
    """The next (samples, channels) of the open `file`; none at its end."""
    from soundfile import LibsndfileError

    try:
        return file.read(max(1, BLOCK // file.channels), dtype="float64", always_2d=True)
    except LibsndfileError as error:
        raise ValueError(f"it is cut short or damaged: {_reason(error)}") from error


def _reason(error: Any) -> str:
    return error.error_string.removeprefix("Error : ").rstrip(".")


def _require_rate(rate: int) -> None:
    if not 1 <= rate <= HIGHEST_RATE:
        raise ValueError(f"it is sampled at {rate} Hz; expected 1 to {HIGHEST_RATE} Hz")


@cache
def _once_through() -> type[Any]:
    """`soundfile.SoundFile` for reading from the first sample to the last, which needs no seeking: after every block
    the original seeks to where it is, and a FLAC stream without a length refuses that.
    """
    from soundfile import SoundFile

    class OnceThrough(SoundFile):
        def seekable(self) -> bool:
            return False

    return OnceThrough


@contextmanager
def _source(content: bytes) -> Iterator[io.BytesIO | int]:
    """`content` as libsndfile should read it: what may be MP3 through a pipe.

    Of an MP3 without a Xing or Info header libsndfile guesses the length from the size of the file and of the first
    frame, and stops there: half of one at 8 kHz (libsndfile 1.2.2). A pipe has no size to guess from.
    """
    if content.startswith(MARKS):
        yield io.BytesIO(content)
        return
    end, start = os.pipe()
    writer = threading.Thread(target=_feed, args=(start, content))
    writer.start()
    try:
        with _quiet_decoder():
            yield end
    finally:
        os.close(end)
        writer.join()


@contextmanager
def _quiet_decoder() -> Iterator[None]:
    """libmpg123 writes several lines to stderr about a file that it dislikes; the error that follows says it in one."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _feed(start: int, content: bytes) -> None:
    try:
        with open(start, "wb") as pipe:
            pipe.write(content)
    except BrokenPipeError:  # libsndfile has read as much as it wants
        pass


def _checked_wav(content: bytes) -> tuple[bytes, int]:
    """A WAV file whose samples are all there, with the size of its `data` chunk where that was left open, and how many
    of the decoded samples count: codecs of blocks fill up their last one, and `fact` says where it ends.

    The file is the `RIFF` header, 12 bytes, and chunks of a name, a size and as many bytes, padded to an even number
    (IBM and Microsoft, "Multimedia Programming Interface and Data Specifications 1.0", 1991).
    """
    order: ByteOrder = "big" if content.startswith(b"RIFX") else "little"
    chunks = {name: (start, size) for name, start, size in _chunks(content, order)}
    codec = most = 0
    if b"fmt " in chunks:
        start, _ = chunks[b"fmt "]
        codec = _number(content, start, order, size=2)
        if start + 8 <= len(content):
            _require_rate(_number(content, start + 4, order))
    if b"fact" in chunks and codec in BLOCK_CODECS:
        most = _number(content, chunks[b"fact"][0], order)
    if b"data" in chunks:  # where it is not, libsndfile says so
        content = _with_all_samples(content, *chunks[b"data"], order)
    return content, most or UNCOUNTED


def _with_all_samples(content: bytes, start: int, size: int, order: ByteOrder) -> bytes:
    """`content` with the true size of its `data` chunk, whose body begins at `start` and claims `size` bytes."""
    found = len(content) - start
    if found < size < STREAM_BYTES:
        raise ValueError(f"it is cut short: {found} bytes of samples; expected {size}")
    # A chunk that is rightly empty lies within what the header counts: the bytes after the first 8.
    left_open = size == 0 and not start - 8 < _number(content, 4, order) < STREAM_BYTES
    if size < STREAM_BYTES and not left_open:
        return content
    return content[: start - 4] + found.to_bytes(4, order) + content[start:]


def _chunks(content: bytes, order: ByteOrder) -> Iterator[tuple[bytes, int, int]]:
    """Name, where the body begins, and claimed size of each chunk up to the one that holds the samples."""
    start, name = 20, b""
    while start <= len(content) and name != b"data":
        name, size = content[start - 8 : start - 4], _number(content, start - 4, order)
        yield name, start, size
        start += size + size % 2 + 8


def _number(content: bytes, start: int, order: ByteOrder, *, size: int = 4) -> int:
    return int.from_bytes(content[start : start + size], order)


def _require_last_page(content: bytes) -> None:
    """ValueError unless an OGG file ends with a whole page that is marked as the last."""
    page = content[content.rfind(b"OggS") :]
    segments = page[26] if len(page) > 26 else 256  # a page begins with 27 bytes and the lengths of its segments
    whole = len(page) >= 27 + segments and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
    if not (whole and page[5] & LAST_PAGE):
        raise ValueError("it is cut short: its last OggS page is not whole, or not marked as the stream's end")
