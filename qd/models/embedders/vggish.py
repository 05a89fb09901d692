"""VGGish (Hershey et al. 2017), the usual embedder of the Fréchet audio distance, with the weights of ``torchvggish``.

This code follows the documented network and its log-mel patches, and is tested with random weights. It has not been run
with the published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from qd.models.embedders.clip_embedder import WINDOWS_AT_ONCE

SAMPLE_RATE = 16_000
WINDOW, HOP, N_FFT = 400, 160, 512
"""Window of 25 ms, hop of 10 ms and FFT size, in samples."""
BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7_500.0
LOG_OFFSET = 0.01
PATCH = 96
"""Frames of a patch, 0.96 s. Patches do not overlap; an incomplete last patch is dropped."""
PATCH_SAMPLES = WINDOW + (PATCH - 1) * HOP
WIDTH = 128
CHANNELS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")
WEIGHTS_URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"


class VGGish(nn.Module):
    """Log-mel patches of 0.96 s → convolutions → three dense layers → 128 numbers per patch.

    As usual for the Fréchet audio distance, there is no ReLU after the last layer, no PCA and no quantisation. As an
    :class:`~qd.models.embedders.loading.Embedder` it returns the unit-norm mean over the patches.
    """

    sample_rate, embedding_width, clip_seconds = SAMPLE_RATE, WIDTH, PATCH * HOP / SAMPLE_RATE

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for channels in CHANNELS:
            if channels == "pool":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
                width = channels
        self.features = nn.Sequential(*layers)
        flat = width * (PATCH // 16) * (BANDS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(flat, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, WIDTH)
        )
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Embeds ``audio`` ``(batch, samples)``; returns unit-norm embeddings ``(batch, 128)``.

        Raises:
            ValueError: the audio is not ``(batch, samples)``, or ``sample_rate`` is not 16,000.
        """
        if sample_rate not in (None, SAMPLE_RATE):
            raise ValueError(f"audio at {sample_rate} Hz, VGGish expects {SAMPLE_RATE} Hz: resample it first")
        return F.normalize(self.embed_windows(audio).mean(dim=1), dim=-1)

    def embed_windows(self, audio: Tensor) -> Tensor:
        """Embeds each patch; returns ``(batch, patches, 128)``, neither centred nor normalised."""
        patches = self.patches(audio)
        embeddings = [self._embed(part) for part in patches.flatten(0, 1).split(WINDOWS_AT_ONCE)]
        return torch.cat(embeddings).unflatten(0, patches.shape[:2])

    def _embed(self, patches: Tensor) -> Tensor:
        x = self.features(patches[:, None])
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as in the TensorFlow original

    def patches(self, audio: Tensor) -> Tensor:
        """Computes log(mel magnitude + 0.01) of ``audio`` ``(batch, samples)``; returns ``(batch, patches, 96, 64)``.

        Audio shorter than one patch is padded with zeros.

        Raises:
            ValueError: the audio is not ``(batch, samples)``.
        """
        if audio.ndim != 2:
            raise ValueError(f"audio of shape {tuple(audio.shape)}: expected (batch, samples)")
        audio = F.pad(audio.float(), (0, max(0, PATCH_SAMPLES - audio.shape[1])))
        frames = audio.unfold(1, WINDOW, HOP) * self.window
        mel = torch.fft.rfft(frames, N_FFT).abs() @ self.filters
        count = mel.shape[1] // PATCH
        return (mel + LOG_OFFSET).log()[:, : count * PATCH].unflatten(1, (count, PATCH))

    @classmethod
    def from_file(cls, path: str | Path) -> VGGish:
        """Loads VGGish from a weights file, ``.pth`` or ``.safetensors``, frozen and in eval mode.

        Raises:
            ValueError: the file does not exist, or does not hold these weights.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"VGGish weights {str(path)!r} do not exist; download them (290 MB) from {WEIGHTS_URL}")
        tensors, model = _tensors(path), cls()
        try:
            model.load_state_dict(tensors)
        except (RuntimeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} does not hold the weights of torchvggish: {error}") from None
        return model.eval().requires_grad_(False)


def mel_filters() -> Tensor:
    """Returns triangular filters on HTK's mel scale, of height 1, ``(257, 64)``; no filter contains the 0 Hz bin."""
    bins = _mel(torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64))
    low, high = _mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), BANDS + 2, dtype=torch.float64)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp_min(0.0)
    filters[0] = 0.0
    return filters.float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many types of errors for other files
        raise ValueError(f"{str(path)!r} does not hold the weights of torchvggish: {error}") from error
