"""Encoded audio -> waveforms of one sampling rate and one length, and the data sets made of them.

Clips of one data set may differ in format, sampling rate, channels and length: channels are averaged, every rate but
`SAMPLE_RATE` is resampled to it, and `_one_second` of each is taken.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from tidepool.data.augmentation import Augmentation
from tidepool.data.dataset import DataError, Kind, LabelledData, Split, statistics_of
from tidepool.data.decoding import PROGRESS_AFTER_S, EncodedItem
from tidepool.data.log_mel import LogMel, log_mel
from tidepool.data.sound_files import read_sound

SAMPLE_RATE = 8000  # Hz
CLIP_SAMPLES = 8000  # one second: 99 in 100 clips of the Free Spoken Digit Dataset are shorter
SHIFT_SHARE = 8  # augmentation shifts a clip by up to an eighth of its length, as it does an image
SPECTROGRAM = LogMel(sample_rate=SAMPLE_RATE)
CHUNK = 512  # clips made into spectrograms at once


@dataclass(frozen=True, eq=False)
class AudioSplit:
    """A split in host memory: waveforms (N, 1, CLIP_SAMPLES) float32 and labels (N,) int64."""

    waveforms: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def assemble_audio(
    name: str,
    train: AudioSplit,
    test: AudioSplit,
    class_names: tuple[str, ...],
    device: torch.device | str,
    *,
    kind: Kind,
    validation: AudioSplit | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> LabelledData:
    """Move the audio to `device`; for networks that take "image", turn it there into log-mel spectrograms, once.

    Augmentation shifts a clip in time only; what comes into view is silence.
    """
    as_spectrograms = kind == "image"
    splits = []
    for split in (train, test, *([] if validation is None else [validation])):
        inputs = torch.from_numpy(split.waveforms).to(device)
        if as_spectrograms:
            inputs = torch.cat([log_mel(chunk, SPECTROGRAM) for chunk in inputs.split(CHUNK)])
        splits.append(Split(inputs, torch.from_numpy(split.labels).to(device)))
    most = splits[0].inputs.shape[-1] // SHIFT_SHARE
    silence = Augmentation((0, most), SPECTROGRAM.silence) if as_spectrograms else Augmentation((most,), 0.0)
    mean, std = statistics_of(splits[0].inputs)
    return LabelledData(
        name=name,
        train=splits[0],
        test=splits[1],
        class_names=class_names,
        mean=mean,
        std=std,
        augmentation=silence,
        validation=None if validation is None else splits[2],
        groups=None if groups is None else torch.from_numpy(groups),
    )


def decode_audio(clips: Iterable[EncodedItem], total: int, description: str) -> npt.NDArray[np.float32]:
    """Decode `total` clips into (N, 1, CLIP_SAMPLES) at SAMPLE_RATE, full scale being -1..1.

    Channels are averaged, other sampling rates resampled (scipy's polyphase filter). Shorter clips get as much
    silence before as after, of longer ones the loudest stretch is kept. A progress bar named `description` appears on
    stderr when this takes longer than a second and stderr is a terminal.

    Raises:
        DataError: a clip cannot be decoded; names the file and the row.
    """
    waveforms = np.zeros((total, 1, CLIP_SAMPLES), dtype=np.float32)
    bar = tqdm(total=total, desc=description, unit="clip", delay=PROGRESS_AFTER_S, disable=None, leave=False)
    with bar:
        for position, clip in enumerate(clips):
            waveforms[position, 0] = _one_second(decode_clip(clip))
            bar.update()
    return waveforms


def decode_clip(clip: EncodedItem) -> npt.NDArray[np.float32]:
    """One clip in WAV, FLAC, OGG or MP3 as (samples,) at SAMPLE_RATE, full scale being -1..1.

    Raises:
        DataError: it cannot be read, is cut short or empty, or holds NaN or infinity (`read_sound`).
    """
    content = clip.content if isinstance(clip.content, bytes) else clip.content.read_bytes()
    try:
        rate, samples = read_sound(content)
    except Exception as error:  # a damaged file mostly surfaces as ValueError, but what may come is not listed anywhere
        raise DataError(f"{clip.where}: audio cannot be decoded: {str(error) or type(error).__name__}") from error
    return _resampled(samples, rate)


def _resampled(samples: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float32]:
    if rate != SAMPLE_RATE:
        from scipy import signal  # two seconds to import

        divisor = math.gcd(rate, SAMPLE_RATE)
        samples = signal.resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor)
    return samples.astype(np.float32)


def _one_second(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(samples,) -> (CLIP_SAMPLES,): the stretch with the most energy, the first of equals; or all of it, in the middle
    of silence, where the odd sample falls to the end.
    """
    missing = CLIP_SAMPLES - len(samples)
    if missing >= 0:
        return np.pad(samples, (missing // 2, missing - missing // 2))
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[CLIP_SAMPLES:] - energy[:-CLIP_SAMPLES]))
    return samples[start : start + CLIP_SAMPLES]
