"""Clips of every kind become waveforms of one rate and length; what cannot be decoded is named.

What files of each format hold is `test_sound_files.py`'s.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.audio_files import SPEAKERS, tone, wav, write_audio, write_audio_folder
from tests.data.image_files import image, png, write_parquet_folder
from tidepool.data import DataError, load_data
from tidepool.data.audio import CLIP_SAMPLES, SAMPLE_RATE, SPECTROGRAM, decode_audio, decode_clip
from tidepool.data.augmentation import augment
from tidepool.data.decoding import EncodedItem
from tidepool.data.log_mel import log_mel

SPOKEN_DIGITS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "spoken_digits"


def _decoded(content: bytes) -> np.ndarray:
    return decode_clip(EncodedItem("here", content))


def _refusal(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_data("spoken_digits", data_dir=folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _train(folder: Path) -> Path:
    return folder / "train-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([-1, 0, 0.5], np.float32), [-1, 0, 0.5]),
        (np.array([[-32768, 0], [0, 16384], [16384, 16384]], np.int16), [-0.5, 0.25, 0.5]),
    ],
    ids=["16 bit", "32 bit", "8 bit", "float", "stereo"],
)
def test_every_type_of_sample_is_brought_to_full_scale_and_one_channel(samples: np.ndarray, expected: list) -> None:
    decoded = _decoded(wav(samples))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, atol=1e-7)


@pytest.mark.parametrize("rate", [4000, 11025, 44100])
def test_other_rates_are_resampled(rate: int) -> None:
    decoded = _decoded(wav(tone(440, rate=rate), rate))
    assert len(decoded) == 4000
    difference = decoded - tone(440)
    assert np.abs(difference[200:-200]).max() < 0.01  # the filter rings at both ends


def test_the_loudest_second_of_a_long_clip_is_kept_and_a_short_one_stands_in_the_middle() -> None:
    long = np.concatenate([np.full(500, 2), np.arange(10, 8010), np.full(501, 3)]).astype(np.int16)
    short = np.full(5, 16384, np.int16)
    items = [EncodedItem("long", wav(long)), EncodedItem("short", wav(short))]
    both = decode_audio(items, 2, "test")
    assert both.shape == (2, 1, CLIP_SAMPLES)
    np.testing.assert_array_equal(both[0, 0] * 32768, long[500:8500])
    assert np.flatnonzero(both[1, 0]).tolist() == [3997, 3998, 3999, 4000, 4001]


WHOLE = wav(tone(440))


def _claiming(rate: int) -> bytes:
    """A clip whose header gives this sampling rate."""
    return WHOLE[:24] + rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little") + WHOLE[32:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"RIFF", ""),
        (b"OggS" + bytes(60), "OggS"),
        (png(image(0)), "PNG"),
        (WHOLE[:30], ""),
        (WHOLE[:-1000], ""),
        (wav(np.zeros(0, np.int16)), "no samples"),
        (wav(np.array([0, np.nan], np.float32)), "NaN or infinity"),
        (_claiming(2**30), "1073741824 Hz; expected 1 to 768000 Hz"),
        (_claiming(0), "0 Hz"),
    ],
    ids=[
        "empty",
        "four bytes",
        "ogg",
        "png",
        "header cut",
        "samples cut",
        "no samples",
        "nan",
        "absurd rate",
        "rate 0",
    ],
)
def test_bad_clips_name_the_file_and_the_row(tmp_path: Path, content: bytes, reason: str) -> None:
    write_audio_folder(tmp_path)
    write_audio(_train(tmp_path), [WHOLE, content, WHOLE], [0, 1, 1])
    message = _refusal(tmp_path)
    assert message.startswith(f"{_train(tmp_path)}, row 1: audio cannot be decoded: ")
    assert reason in message
    assert "0x" not in message


def test_a_null_clip_names_the_file_and_the_row(tmp_path: Path) -> None:
    write_audio_folder(tmp_path)
    write_audio(_train(tmp_path), [WHOLE, WHOLE, None], [0, 1, 1])
    assert _refusal(tmp_path).startswith(f"{_train(tmp_path)}, row 2: holds no bytes; expected an encoded image or")


def test_missing_folder_split_and_rows(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "nowhere").startswith(f"{tmp_path}/nowhere: no such folder; expected")
    write_audio_folder(tmp_path)
    write_audio(_train(tmp_path), [], [])
    assert _refusal(tmp_path) == f"{_train(tmp_path)}: holds no rows; expected at least one"
    _train(tmp_path).unlink()
    assert _refusal(tmp_path).startswith(f"{tmp_path}: no train split; expected train-00000-of-00001.parquet")


def test_wav_files_that_are_no_parquet_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "0_ann_0.wav").write_bytes(WHOLE)
    assert _refusal(tmp_path).startswith(f"{tmp_path}: folder has no data set in it; expected train-*.parquet")


def test_images_beside_audio_are_refused(tmp_path: Path) -> None:
    write_audio_folder(tmp_path)
    images = write_parquet_folder(tmp_path / "images") / "test-00000-of-00001.parquet"
    images.replace(tmp_path / "test-00000-of-00001.parquet")
    assert "train and test shards name different classes" in _refusal(tmp_path)


def test_audio_in_any_folder_are_found_with_and_without_metadata(tmp_path: Path) -> None:
    write_audio_folder(tmp_path / "tones")
    named = load_data(str(tmp_path / "tones"), kind="waveform")
    assert (named.name, named.class_names) == ("tones", ("low", "high"))
    for split in ("train", "test"):
        write_audio(tmp_path / "plain" / f"{split}.parquet", [WHOLE, WHOLE], [0, 3], metadata=False)
    plain = load_data(str(tmp_path / "plain"), kind="waveform")
    assert plain.class_names == ("0", "1", "2", "3")
    assert plain.train.inputs.shape == (2, 1, CLIP_SAMPLES)


def test_spectrograms_are_those_of_the_waveforms_and_statistics_those_of_the_training_inputs(tmp_path: Path) -> None:
    write_audio_folder(tmp_path)
    waves = load_data("spoken_digits", data_dir=tmp_path, kind="waveform")
    images = load_data("spoken_digits", data_dir=tmp_path)
    for data, size in ((waves, (8000,)), (images, (40, 63))):
        assert (data.in_channels, data.input_size, data.num_classes) == (1, size, 2)
        assert data.train.inputs.dtype == torch.float32
        assert data.mean.item() == pytest.approx(data.train.inputs.double().mean().item(), rel=1e-6)
        assert data.std.item() == pytest.approx(data.train.inputs.double().std(correction=0).item(), rel=1e-6)
    assert torch.equal(images.test.inputs, log_mel(waves.test.inputs, SPECTROGRAM))


def test_a_shift_in_time_brings_silence_into_view(tmp_path: Path) -> None:
    images = load_data("spoken_digits", data_dir=write_audio_folder(tmp_path))
    assert images.augmentation.shift == (0, 7)
    moved = augment(images.train.inputs, images.augmentation, torch.Generator().manual_seed(0))
    silence = log_mel(torch.zeros(1, 1, CLIP_SAMPLES), SPECTROGRAM)[0, 0, 0, 0]
    assert not torch.equal(moved, images.train.inputs)
    assert torch.allclose(moved[..., 0], silence)
    assert torch.allclose(moved.sum((2, 3)), images.train.inputs.sum((2, 3)))  # half a second of tone is never cut


def test_a_held_out_speaker_is_the_whole_test_split_and_no_part_of_training(tmp_path: Path) -> None:
    write_audio_folder(tmp_path)
    everything = load_data("spoken_digits", data_dir=tmp_path, kind="waveform")
    both = torch.cat([everything.train.inputs, everything.test.inputs])
    theirs = torch.tensor([row % 3 == 1 for row in (*range(12), *range(6))])
    parted = load_data("spoken_digits", data_dir=tmp_path, kind="waveform", held_out_speaker=SPEAKERS[1])
    assert torch.equal(parted.test.inputs, both[theirs])
    assert torch.equal(parted.train.inputs, both[~theirs])
    assert parted.train.labels.tolist() == [label for row in range(12) if row % 3 != 1 for label in [row % 2]] + [
        row % 2 for row in range(6) if row % 3 != 1
    ]


def test_speakers_that_cannot_be_held_out(tmp_path: Path) -> None:
    write_audio_folder(tmp_path)
    assert _refusal(tmp_path, held_out_speaker="theo") == (
        f"held_out_speaker=theo: no such speaker in {tmp_path}; expected one of: ann, bob, cleo"
    )
    write_audio(_train(tmp_path), [WHOLE], [0])
    assert _refusal(tmp_path, held_out_speaker="ann").startswith(f"{_train(tmp_path)}: expected a column named speaker")


def test_what_is_for_images_or_videos_is_refused(tmp_path: Path) -> None:
    write_audio_folder(tmp_path)
    assert "holds audio, but the model takes videos" in _refusal(tmp_path, kind="video")
    with pytest.raises(DataError, match=rf"^image_size=32: data '{tmp_path.name}' holds audio; it is for images$"):
        load_data(str(tmp_path), image_size=32)


def test_spoken_digits_in_a_folder_of_images_are_refused(tmp_path: Path) -> None:
    assert _refusal(write_parquet_folder(tmp_path)) == f"{tmp_path}: holds images; data 'spoken_digits' is audio"


def test_the_free_spoken_digit_dataset_is_read() -> None:
    if not (SPOKEN_DIGITS / "test-00000-of-00001.parquet").exists():
        pytest.skip(f"no Free Spoken Digit Dataset at {SPOKEN_DIGITS}")
    digits = load_data("spoken_digits", data_dir=SPOKEN_DIGITS, kind="waveform")
    assert SAMPLE_RATE == 8000  # as recorded: nothing is resampled
    assert digits.class_names == tuple("0123456789")
    assert digits.train.labels.bincount().tolist() == [270] * 10
    assert digits.test.labels.bincount().tolist() == [30] * 10
    loudest = torch.cat([digits.train.inputs, digits.test.inputs]).abs().amax((1, 2))
    assert loudest.min() > 0.005  # the speech is in the second that is kept, wherever a clip has it
