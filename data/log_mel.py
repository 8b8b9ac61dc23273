"""Log-mel spectrograms, computed with torch on the device the waveforms are on."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class LogMel:
    """Settings of a log-mel spectrogram: 32 ms Hann windows every 16 ms, at 8 kHz, in 40 bands.

    Coarser than is usual for sentences (25 ms every 10 ms, 64 bands or more), which are longer: a single word of a
    second is 40 by 63 numbers, a small image.
    """

    sample_rate: int = 8000
    """Hz."""
    window: int = 256
    """Samples of a Hann window (periodic)."""
    hop: int = 128
    """Samples from one frame to the next."""
    transform: int = 512
    """Points of the Fourier transform. Each window stands in the middle of zeros, so that even the lowest bands, 33 Hz
    apart, hold several bins."""
    bands: int = 40
    lowest: float = 60.0
    """Hz: where the first band begins. Below it there is hum and no speech."""
    highest: float = 4000.0
    """Hz: where the last band ends."""
    floor: float = 1e-6
    """Added to each band's power before the logarithm, with samples at full scale -1..1."""

    @property
    def silence(self) -> float:
        """What the spectrogram of silence holds."""
        return math.log(self.floor)

    def frames(self, samples: int) -> int:
        """How many frames a waveform of `samples` has: one about each multiple of `hop` in 0..samples."""
        return 1 + samples // self.hop


def mel_from_hz(hz: torch.Tensor) -> torch.Tensor:
    """The mel scale as the HTK Book has it (S. Young et al., 2006, section 5.4): 2595 log10(1 + f / 700)."""
    return 2595 * torch.log10(1 + hz / 700)


def hz_from_mel(mel: torch.Tensor) -> torch.Tensor:
    """The inverse of `mel_from_hz`."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(settings: LogMel) -> torch.Tensor:
    """Weights (bands, transform / 2 + 1) float64 of each Fourier bin in each band.

    HTK's triangles: their corners are evenly spaced in mel from `lowest` to `highest`, each rises from the middle of
    the band before to 1 at its own middle and falls to 0 at the middle of the next, and their slopes are straight in
    mel. VGGish's are the same.
    """
    bins = torch.arange(settings.transform // 2 + 1, dtype=torch.float64) * settings.sample_rate / settings.transform
    limits = mel_from_hz(torch.tensor([settings.lowest, settings.highest], dtype=torch.float64))
    corners = torch.linspace(float(limits[0]), float(limits[1]), settings.bands + 2, dtype=torch.float64)
    mel = mel_from_hz(bins)  # [bins]
    rising = (mel - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]  # [bands, bins]
    falling = (corners[2:, None] - mel) / (corners[2:] - corners[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_(min=0)


def log_mel(waveforms: torch.Tensor, settings: LogMel) -> torch.Tensor:
    """(N, 1, samples) float32 at full scale -1..1 -> (N, 1, bands, frames) float32: ln(floor + power in each band).

    Power is |X|^2 of the Fourier transform of each window (torch.stft, not normalised). Frame t is centred on sample
    t * hop, with silence before the first sample and after the last.
    """
    window = torch.hann_window(settings.window, dtype=waveforms.dtype, device=waveforms.device)
    margin = settings.transform // 2
    spectrum = torch.stft(
        F.pad(waveforms[:, 0], (margin, margin)),
        settings.transform,
        hop_length=settings.hop,
        win_length=settings.window,
        window=window,
        center=False,
        return_complex=True,
    )  # [N, bins, frames]
    power = spectrum.real.square() + spectrum.imag.square()
    bands = mel_filters(settings).to(waveforms) @ power
    return torch.log(bands + settings.floor).unsqueeze(1)
