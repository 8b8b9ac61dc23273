"""The spectrogram against one made with numpy's FFT and scipy's window, band by band; and what tones look like."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import signal

from tidepool.data.log_mel import LogMel, hz_from_mel, log_mel, mel_filters, mel_from_hz


def _mel(hz: float) -> float:
    return 1127.01048 * math.log(1 + hz / 700)  # the same scale in its other usual spelling


def _by_loops(waveform: np.ndarray, settings: LogMel) -> np.ndarray:
    """(samples,) -> (bands, frames), with a loop for each sum."""
    half = settings.window // 2
    padded = np.concatenate([np.zeros(half), waveform, np.zeros(half)])
    window = signal.get_window("hann", settings.window)
    low, high = _mel(settings.lowest), _mel(settings.highest)
    width = (high - low) / (settings.bands + 1)
    result = np.zeros((settings.bands, 1 + len(waveform) // settings.hop))
    for frame in range(result.shape[1]):
        piece = padded[frame * settings.hop : frame * settings.hop + settings.window] * window
        power = np.abs(np.fft.rfft(piece, settings.transform)) ** 2
        for band in range(settings.bands):
            middle = low + (band + 1) * width
            for place, value in enumerate(power):
                distance = abs(_mel(place * settings.sample_rate / settings.transform) - middle) / width
                result[band, frame] += value * max(0.0, 1 - distance)
    return np.log(result + settings.floor)


@pytest.mark.parametrize(
    "settings",
    [
        LogMel(),
        LogMel(bands=12, window=64, hop=50, transform=64, lowest=0.0),
        LogMel(sample_rate=16000, window=100, hop=40, transform=256, bands=9, lowest=125.0, highest=7500.0),
    ],
    ids=["default", "no zeros", "16 kHz"],
)
def test_it_is_its_formula(settings: LogMel) -> None:
    generator = np.random.default_rng(0)
    waveform = generator.normal(0, 0.2, 441)
    ours = log_mel(torch.from_numpy(waveform)[None, None], settings)[0, 0].numpy()
    assert ours.shape == (settings.bands, settings.frames(441))
    np.testing.assert_allclose(ours, _by_loops(waveform, settings), rtol=0, atol=1e-6)  # 1127.01048 has nine digits


def test_float32_is_near_float64() -> None:
    waveforms = torch.randn(3, 1, 2000, generator=torch.Generator().manual_seed(1)) / 10
    ours = log_mel(waveforms, LogMel())
    assert ours.shape == (3, 1, 40, 16)
    assert ours.dtype == torch.float32
    assert (ours - log_mel(waveforms.double(), LogMel())).abs().max() < 1e-3


@pytest.mark.parametrize("hz", [100.0, 440.0, 1000.0, 3500.0])
def test_a_tone_is_loudest_in_the_band_about_it(hz: float) -> None:
    settings = LogMel()
    wave = torch.sin(2 * math.pi * hz * torch.arange(8000) / 8000)[None, None]
    corners = hz_from_mel(torch.linspace(mel_from_hz(torch.tensor(60.0)), mel_from_hz(torch.tensor(4000.0)), 42))
    loudest = log_mel(wave, settings)[0, 0, :, 30].argmax().item()
    assert corners[loudest] < hz < corners[loudest + 2]


def test_silence_is_the_floor() -> None:
    quiet = log_mel(torch.zeros(1, 1, 400), LogMel())
    assert torch.allclose(quiet, torch.tensor(LogMel().silence))


def test_a_frame_sees_its_window_and_nothing_else() -> None:
    settings = LogMel()
    click = torch.zeros(1, 1, 1600)
    click[..., 800] = 1.0
    sees = (log_mel(click, settings)[0, 0] > settings.silence + 1e-3).any(0)
    assert sees.nonzero().flatten().tolist() == [6, 7]  # centred on 768 and 896, each 128 to either side


def test_every_band_has_bins_and_between_first_and_last_middle_the_weights_add_up_to_one() -> None:
    settings = LogMel()
    filters = mel_filters(settings)
    assert filters.shape == (40, 257)
    assert (filters > 0).any(1).all()
    step = (mel_from_hz(torch.tensor(4000.0)) - mel_from_hz(torch.tensor(60.0))) / 41
    mel = mel_from_hz(torch.arange(257) * 8000 / 512)
    inner = (mel >= mel_from_hz(torch.tensor(60.0)) + step) & (mel <= mel_from_hz(torch.tensor(4000.0)) - step)
    assert torch.allclose(filters.sum(0)[inner], torch.ones(1, dtype=torch.float64))
    assert filters.sum(0)[0] == 0


def test_the_mel_scale_and_back() -> None:
    hz = torch.tensor([0.0, 60, 1000, 4000], dtype=torch.float64)
    assert torch.allclose(hz_from_mel(mel_from_hz(hz)), hz)
    assert mel_from_hz(hz)[2].item() == pytest.approx(1000, abs=0.02)  # what the scale is made for


def test_a_batch_is_its_single_waveforms() -> None:
    waveforms = torch.randn(4, 1, 1000, generator=torch.Generator().manual_seed(2))
    settings = dataclasses.replace(LogMel(), bands=20)
    together = log_mel(waveforms, settings)
    assert all(
        torch.allclose(log_mel(one[None], settings)[0], both) for one, both in zip(waveforms, together, strict=True)
    )
