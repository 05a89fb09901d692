"""Layers of the built-in codec: ConvNeXt blocks, changes of the frame rate, inverse STFT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_LOG_MAGNITUDE = 6.0
"""Upper bound of the head's log magnitudes: a full-scale sine reaches log(n_fft / 4), about 5.8 at n_fft = 1280."""


class ConvNeXtBlock(nn.Module):
    """``x + γ · MLP(LayerNorm(depthwise convolution of x over time))``, on ``(batch, frames, width)``."""

    def __init__(self, width: int, expansion: int, kernel_size: int = 7) -> None:
        super().__init__()
        # 2-D, because on a CPU the 2-D depthwise kernels are several times faster than the 1-D ones.
        self.depthwise = nn.Conv2d(width, width, (1, kernel_size), padding=(0, kernel_size // 2), groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.depthwise(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        return x + self.scale * self.contract(F.gelu(self.expand(self.norm(mixed))))


class Downsample(nn.Module):
    """Convolution whose kernel is its stride: ``(batch, frames, width)`` → ``(batch, frames / stride, width)``."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        self.merge = nn.Linear(stride * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(self.norm(x).unflatten(1, (-1, self.stride)).flatten(2))


class Upsample(nn.Module):
    """Transposed counterpart of :class:`Downsample`."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        self.split = nn.Linear(width, stride * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.split(self.norm(x)).unflatten(2, (self.stride, -1)).flatten(1, 2)


class InverseSTFTHead(nn.Module):
    """Predicts each frame's log magnitude m and phase p: ``(batch, frames, width)`` → ``(batch, frames · hop_length)``.

    ``S = exp(min(m, 6)) · (cos p + i sin p)`` (Siuzdak 2023, Vocos), so the phase needs no unwrapping.
    """

    def __init__(self, width: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.project = nn.Linear(width, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            magnitude, phase = self.project(x.float()).chunk(2, dim=-1)
            magnitude = magnitude.clamp_max(MAX_LOG_MAGNITUDE).exp()
            # torch.polar is several times slower on a CPU, because it is not vectorised.
            spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
            return inverse_stft(spectrum, self.window, self.hop_length)


def inverse_stft(spectrum: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Computes the least-squares inverse of an STFT whose frame t is centred on sample (t + ½) · hop_length.

    The windowed frames are overlap-added and divided by the sum of squared windows (Griffin & Lim 1984, Eq. 6).

    Shapes: complex spectrum ``(batch, frames, n_fft/2 + 1)``, window ``(n_fft,)`` → ``(batch, frames · hop_length)``.

    Raises:
        ValueError: the window is not a multiple of the hop.
    """
    n_fft, frames = len(window), spectrum.shape[1]
    if n_fft % hop_length:
        raise ValueError(f"n_fft={n_fft} must be a multiple of hop_length={hop_length}")
    audio = _overlap_add(torch.fft.irfft(spectrum, n=n_fft), window, hop_length)
    envelope = _overlap_add(window.expand(1, frames, n_fft), window, hop_length)
    margin = (n_fft - hop_length) // 2
    length = frames * hop_length
    return audio[:, margin : margin + length] / envelope[:, margin : margin + length]


def _overlap_add(frames: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Windows the frames ``(batch, frames, n_fft)`` and adds them, each one hop later than the previous one."""
    batch, count, n_fft = frames.shape
    overlap = n_fft // hop_length
    hops, weights = frames.unflatten(2, (overlap, hop_length)), window.unflatten(0, (overlap, hop_length))
    total = frames.new_zeros(batch, count + overlap - 1, hop_length)
    for k in range(overlap):
        total[:, k : k + count].addcmul_(hops[:, :, k], weights[k])
    return total.flatten(1)
