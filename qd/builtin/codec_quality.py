"""Measures a codec's reconstruction of held-out pieces, and librosa's inversion of the same mel spectrogram."""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import Tensor

from qd.audio.mel import MelSpectrogram
from qd.data.worlds import edition
from qd.models.codecs.codec import FrameCodec
from qd.objectives.spectral import multi_scale_spectral_loss


@torch.no_grad()
def measure(codec: FrameCodec, n_clips: int, seconds: float = 4.0, world: int = 1) -> dict[str, float | list[float]]:
    """Measures the reconstruction of the first ``n_clips`` clips of the validation split of an edition of the world.

    Returns:
        ``spectral`` (multi-scale spectral loss) and ``log_mel_l1`` (mean absolute difference of natural log-mel
        magnitudes) of the codec, both of librosa with the prefix ``librosa_``, and for each codebook ``usage`` (share
        of the codes that occur) and ``perplexity`` (exp of the entropy of the code frequencies).
    """
    audio = torch.from_numpy(np.stack([edition(world).clip("validation", i, seconds).audio for i in range(n_clips)]))
    codes = torch.cat([codec.encode(batch) for batch in audio.split(16)])
    decoded = torch.cat([codec.decode(batch) for batch in codes.split(16)])[:, : audio.shape[1]]
    inverted = invert_mel(codec, audio)
    usage, perplexity = codebook_use(codes, codec.codebook_size)
    return {
        **_distances(codec, decoded, audio),
        **{f"librosa_{name}": value for name, value in _distances(codec, inverted, audio).items()},
        "usage": usage,
        "perplexity": perplexity,
    }


def invert_mel(codec: FrameCodec, audio: Tensor) -> Tensor:
    """Inverts, by librosa, the audio's mel spectrogram at the codec's resolution, ``(batch, samples)``."""
    c = codec.config
    mel = MelSpectrogram(c.sample_rate, c.n_fft, c.n_fft, c.hop_length, c.n_mels, power=1.0, htk=False, norm="slaney")
    clips = [_griffin_lim(clip.numpy(), codec, audio.shape[1]) for clip in mel(audio)]
    return torch.from_numpy(np.stack(clips)).float()


def codebook_use(codes: Tensor, codebook_size: int) -> tuple[list[float], list[float]]:
    """Returns the usage and the perplexity of each codebook for codes ``(batch, codebooks, frames)``."""
    usage, perplexity = [], []
    for indices in codes.unbind(1):
        frequencies = torch.bincount(indices.flatten(), minlength=codebook_size) / indices.numel()
        usage.append(float((frequencies > 0).float().mean()))
        perplexity.append(float(torch.special.entr(frequencies).sum().exp()))
    return usage, perplexity


def _griffin_lim(mel: np.ndarray, codec: FrameCodec, length: int) -> np.ndarray:
    magnitude = librosa.feature.inverse.mel_to_stft(
        mel, sr=codec.sample_rate, n_fft=codec.config.n_fft, power=1.0, htk=False, norm="slaney"
    )
    return librosa.griffinlim(magnitude, hop_length=codec.config.hop_length, length=length, random_state=0)


def _distances(codec: FrameCodec, reconstruction: Tensor, audio: Tensor) -> dict[str, float]:
    return {
        "spectral": float(multi_scale_spectral_loss(reconstruction, audio)),
        "log_mel_l1": float((codec.mel(reconstruction) - codec.mel(audio)).abs().mean()),
    }
