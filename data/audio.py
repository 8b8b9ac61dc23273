"""WAV audio -> waveforms of one sampling rate and one length, and the data sets made of them.

scipy reads the WAV files: it is among the dependencies anyway, for the statistics of `analysis`.
"""

import io
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from tidepool.data.augmentation import Augmentation
from tidepool.data.dataset import DataError, Kind, LabelledData, Split
from tidepool.data.decoding import PROGRESS_AFTER_S, EncodedItem
from tidepool.data.log_mel import LogMel, log_mel

SAMPLE_RATE = 8000  # Hz
CLIP_SAMPLES = 8000  # one second: 99 in 100 clips of the Free Spoken Digit Dataset are shorter
# A header that claims more than these is damaged, and resampling by it would take all memory.
HIGHEST_RATE = 768_000
LONGEST_SECONDS = 600
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
) -> LabelledData:
    """Move the audio to `device`; for networks that take "image", turn it there into log-mel spectrograms, once.

    Augmentation shifts a clip in time only; what comes into view is silence.
    """
    as_spectrograms = kind == "image"
    splits = []
    for split in (train, test):
        inputs = torch.from_numpy(split.waveforms).to(device)
        if as_spectrograms:
            inputs = torch.cat([log_mel(chunk, SPECTROGRAM) for chunk in inputs.split(CHUNK)])
        splits.append(Split(inputs, torch.from_numpy(split.labels).to(device)))
    most = splits[0].inputs.shape[-1] // SHIFT_SHARE
    silence = Augmentation((0, most), SPECTROGRAM.silence) if as_spectrograms else Augmentation((most,), 0.0)
    wide = splits[0].inputs.double()
    std = wide.std(correction=0)
    return LabelledData(
        name=name,
        train=splits[0],
        test=splits[1],
        class_names=class_names,
        mean=wide.mean().float().view(1),
        std=torch.where(std > 0, std, 1.0).float().view(1),
        augmentation=silence,
    )


def decode_audio(clips: Iterable[EncodedItem], total: int, description: str) -> npt.NDArray[np.float32]:
    """Decode `total` WAV clips into (N, 1, CLIP_SAMPLES) at SAMPLE_RATE, full scale being -1..1.

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
    """One WAV clip as (samples,) at SAMPLE_RATE, full scale being -1..1.

    Raises:
        DataError: scipy cannot read it, it is cut short or empty, or holds NaN or infinity.
    """
    from scipy.io import wavfile  # half a second to import, so only when there is audio

    source = io.BytesIO(clip.content) if isinstance(clip.content, bytes) else clip.content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)  # a file that ends before its header says
            warnings.filterwarnings("ignore", r"Chunk \(non-data\) not understood", wavfile.WavFileWarning)
            rate, samples = wavfile.read(source)
            return _resampled(_mono(samples), rate)
    except Exception as error:  # a damaged file surfaces as ValueError, struct.error, EOFError, a warning, ...
        reason = str(error) or type(error).__name__
        raise DataError(f"{clip.where}: audio cannot be decoded as WAV: {reason}") from error


def _mono(samples: npt.NDArray) -> npt.NDArray[np.float64]:
    """(samples,) or (samples, channels) of any of WAV's types -> the mean over channels at full scale -1..1."""
    if not samples.size:
        raise ValueError("it holds no samples; expected at least one")
    if samples.dtype.kind == "f":
        scaled = samples.astype(np.float64)
        if not np.isfinite(scaled).all():
            raise ValueError("it holds NaN or infinity; expected finite samples")
    elif samples.dtype == np.uint8:
        scaled = (samples.astype(np.float64) - 128) / 128
    else:  # scipy gives 24-bit samples as the upper bits of 32-bit ones
        scaled = samples.astype(np.float64) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return scaled.reshape(len(scaled), -1).mean(axis=1)


def _resampled(samples: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float32]:
    if not 1 <= rate <= HIGHEST_RATE or len(samples) > LONGEST_SECONDS * rate:
        raise ValueError(
            f"{len(samples)} samples at {rate} Hz; expected 1 to {HIGHEST_RATE} Hz and at most {LONGEST_SECONDS} s"
        )
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
