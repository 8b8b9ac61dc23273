"""Files of each format hold what was written into them, and one that is cut anywhere is refused."""

import io

import numpy as np
import pytest
import soundfile

from tests.data.audio_files import tone
from tests.data.image_files import image, png
from tidepool.data.sound_files import LONGEST_SECONDS, read_sound

WAV_CODECS = sorted(set(soundfile.available_subtypes("WAV")) - {"MPEG_LAYER_III"})  # which libsndfile does not write
KINDS = [*(("WAV", codec) for codec in WAV_CODECS), ("WAVEX", "PCM_24"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")]
KINDS += [("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
LOSS = {"PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-31, "PCM_U8": 2**-7, "FLOAT": 2**-24, "DOUBLE": 0.0}
SAMPLES = tone(440, seconds=3)
TO_THE_END = b"\xff" * 4  # what ffmpeg writes for a size into a pipe
UNFILLED = bytes(4)


def encoded(kind: str, codec: str, samples: np.ndarray = SAMPLES, *, rate: int = 8000, endian: str = "FILE") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=codec, endian=endian)
    return buffer.getvalue()


WHOLE = encoded("WAV", "PCM_16")


def _refusal(content: bytes) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        read_sound(content)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "codec"), KINDS, ids=lambda value: value)
def test_samples_are_those_that_were_written_to_what_the_codec_loses(kind: str, codec: str) -> None:
    content = encoded(kind, codec)
    rate, samples = read_sound(content)
    assert rate == 8000
    assert samples.dtype == np.float64
    most = LOSS.get(codec, 0.06)
    if most < 0.06 or codec in ("ALAW", "ULAW", "VORBIS", "OPUS", "MPEG_LAYER_III", "MS_ADPCM", "GSM610"):
        assert len(samples) == len(SAMPLES)
    else:
        assert 0 <= len(samples) - len(SAMPLES) < 1024  # a codec of blocks that fills up its last one, and says nothing
    difference = np.abs(samples[: len(SAMPLES)] - SAMPLES)[200:-200]  # Opus and MP3 ring at both ends
    assert difference.max() <= most if most < 0.06 else difference.mean() < most


@pytest.mark.parametrize(("kind", "codec"), KINDS, ids=lambda value: value)
def test_a_file_that_is_cut_is_refused_wherever_it_is(kind: str, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(kind, codec)
    padding = 1 if codec == "GSM610" else 0  # an odd number of bytes of samples
    for kept in (len(content) - padding - 1, len(content) - 400, len(content) // 2, len(content) // 10, 20, 3):
        _refusal(content[:kept])
    assert capfd.readouterr().err == ""  # libmpg123 would write there


def test_ogg_that_ends_at_the_end_of_a_page_is_cut_short() -> None:
    content = encoded("OGG", "OPUS", 0.3 * np.random.default_rng(0).standard_normal(80_000))
    pages = [at for at in range(len(content)) if content.startswith(b"OggS", at)]
    assert len(pages) > 5
    for page in pages[3:]:
        assert _refusal(content[:page]).startswith("it is cut short: its last OggS page")
    assert len(read_sound(content)[1]) == 80_000


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (UNFILLED, WHOLE[40:44]),
        (UNFILLED, UNFILLED),
        ((36).to_bytes(4, "little"), UNFILLED),
        (TO_THE_END, TO_THE_END),
        (TO_THE_END, UNFILLED),
        (UNFILLED, TO_THE_END),
        ((0x7FFFF024).to_bytes(4, "little"), (0x7FFFF000).to_bytes(4, "little")),
    ],
    ids=["RIFF 0", "both 0", "header only", "both open", "RIFF open, data 0", "data open", "sox"],
)
def test_a_wav_stream_reaches_to_the_end_of_the_file(riff: bytes, data: bytes) -> None:
    streamed = WHOLE[:4] + riff + WHOLE[8:40] + data + WHOLE[44:]
    np.testing.assert_array_equal(read_sound(streamed)[1], read_sound(WHOLE)[1])


def test_samples_end_where_their_chunk_does() -> None:
    with_a_list = WHOLE + b"LIST\x04\x00\x00\x00abcd"
    np.testing.assert_array_equal(read_sound(with_a_list)[1], read_sound(WHOLE)[1])
    before = WHOLE[:36] + b"note\x03\x00\x00\x00abc\x00" + WHOLE[36:]
    np.testing.assert_array_equal(read_sound(before)[1], read_sound(WHOLE)[1])
    claims_more = UNFILLED + WHOLE[8:40] + (50_000).to_bytes(4, "little")
    assert _refusal(WHOLE[:4] + claims_more + WHOLE[44:]) == "it is cut short: 48000 bytes of samples; expected 50000"
    empty = encoded("WAV", "PCM_16", np.zeros(0)) + b"LIST\x04\x00\x00\x00abcd"
    empty = empty[:4] + (len(empty) - 8).to_bytes(4, "little") + empty[8:]
    assert _refusal(empty) == "it holds no samples; expected at least one"


def test_big_endian_wav() -> None:
    big = encoded("WAV", "PCM_16", endian="BIG")
    assert big[:4] == b"RIFX"
    np.testing.assert_array_equal(read_sound(big)[1], read_sound(WHOLE)[1])
    assert _refusal(big[:-10]) == "it is cut short: 47990 bytes of samples; expected 48000"


def test_a_flac_stream_without_a_length() -> None:
    counted = encoded("FLAC", "PCM_16")
    streamed = counted[:21] + bytes([counted[21] & 0xF0]) + bytes(4) + counted[26:]  # 36 bits of them count samples
    np.testing.assert_array_equal(read_sound(streamed)[1], read_sound(counted)[1])
    assert _refusal(streamed[:-500]) == "it is cut short or damaged: flac decoder lost sync"


def test_an_mp3_whose_first_frame_does_not_count_the_others_is_read_to_its_end() -> None:
    content = encoded("MP3", "MPEG_LAYER_III")
    first = 288  # bytes of a frame of 32 kbit/s at 8 kHz
    assert b"Info" in content[:first] or b"Xing" in content[:first]
    assert content[first] == 0xFF
    uncounted = len(read_sound(content[first:])[1])
    assert len(SAMPLES) <= uncounted < 1.1 * len(SAMPLES)  # with what the codec adds at both ends
    tagged = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + content + b"TAG" + bytes(125)
    np.testing.assert_array_equal(read_sound(tagged)[1], read_sound(content)[1])


def test_channels_are_averaged() -> None:
    channels = np.stack([SAMPLES, np.zeros_like(SAMPLES), -0.5 * SAMPLES], axis=1)
    for kind, codec in (("WAV", "DOUBLE"), ("FLAC", "PCM_24")):
        np.testing.assert_allclose(read_sound(encoded(kind, codec, channels))[1], SAMPLES / 6, atol=2**-22)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; expected WAV, FLAC, OGG, MP3"),
        (png(image(0)), "format not recognised; expected WAV, FLAC, OGG, MP3, and it begins with b'\\x89PNG'"),
        (b"\xff\xfb" + bytes(5000), "format not recognised; expected WAV"),
        (encoded("AIFF", "PCM_16"), "it is AIFF (Apple/SGI); expected WAV"),
        (WHOLE[:24] + bytes(4) + WHOLE[28:], "it is sampled at 0 Hz; expected 1 to 768000 Hz"),
        (WHOLE[:24] + TO_THE_END + WHOLE[28:], "it is sampled at 4294967295 Hz; expected"),
        (encoded("FLAC", "PCM_16", np.zeros(LONGEST_SECONDS + 1), rate=1), "it is longer than 600 s at 1 Hz"),
        (encoded("WAV", "DOUBLE", np.array([0, np.inf])), "it holds NaN or infinity; expected finite samples"),
    ],
    ids=["empty", "png", "zeros like mp3", "aiff", "rate 0", "rate 2^32-1", "long", "infinity"],
)
def test_what_is_no_such_file_is_refused_in_one_line(
    content: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _refusal(content).startswith(reason)
    assert capfd.readouterr().err == ""
