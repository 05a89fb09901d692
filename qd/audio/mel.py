"""Mel spectrograms in PyTorch, equal to librosa's."""

from __future__ import annotations

import librosa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_FLOOR = 1e-5
"""Smallest value before the logarithm, so that silence is finite."""


class MelSpectrogram(nn.Module):
    """Computes a mel spectrogram ``M · |STFT(x)|^power`` with a Hann window, optionally ``log(max(·, 1e-5))``.

    Maps audio ``(batch, samples)`` to ``(batch, n_mels, frames)``. With ``center`` frames = 1 + samples // hop_length,
    and half a window of zeros pads both ends, as in librosa. Otherwise frames = 1 + (samples − n_fft) // hop_length.
    Computed in float32, also under autocast.

    Args:
        sample_rate: Sample rate of the audio in Hz.
        n_fft: FFT size in samples. The window is padded with zeros to this size.
        window_length: Length of the Hann window in samples.
        hop_length: Distance between frames in samples.
        n_mels: Number of mel bands.
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz. None: half the sample rate.
        power: Exponent of the magnitude, 1 for magnitude and 2 for power.
        htk: Whether to use HTK's mel scale instead of Slaney's.
        norm: "slaney" divides each band by its width. None leaves the triangles at height 1.
        log: Whether to return natural logarithms.
        center: Whether frames are centred on multiples of the hop.

    Raises:
        ValueError: If the window is longer than the FFT, or the audio is not ``(batch, samples)``.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        window_length: int,
        hop_length: int,
        n_mels: int,
        f_min: float = 0.0,
        f_max: float | None = None,
        power: float = 2.0,
        htk: bool = True,
        norm: str | None = None,
        log: bool = False,
        center: bool = True,
    ) -> None:
        super().__init__()
        if window_length > n_fft:
            raise ValueError(f"window_length={window_length} is longer than n_fft={n_fft}. Raise n_fft.")
        self.n_fft, self.window_length, self.hop_length = n_fft, window_length, hop_length
        self.power, self.log, self.center = power, log, center
        filters = librosa.filters.mel(
            sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=htk, norm=norm
        )
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Maps audio ``(batch, samples)`` to a mel spectrogram ``(batch, n_mels, frames)``, float32."""
        if audio.ndim != 2:
            raise ValueError(f"audio has shape {tuple(audio.shape)}: expected (batch, samples).")
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio.float()
            if self.center:
                audio = F.pad(audio, (self.n_fft // 2, self.n_fft // 2))
            spectrum = torch.stft(
                audio,
                self.n_fft,
                self.hop_length,
                self.window_length,
                self.window,
                center=False,
                return_complex=True,
            )
            mel = self.filters @ _magnitude(spectrum, self.power)
            return mel.clamp_min(LOG_FLOOR).log() if self.log else mel


def _magnitude(spectrum: Tensor, power: float) -> Tensor:
    """Returns |z|^power, with a finite gradient at z = 0."""
    squared = spectrum.real.square() + spectrum.imag.square()
    return squared if power == 2.0 else squared.clamp_min(1e-14).pow(power / 2)
