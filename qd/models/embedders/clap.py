"""The audio half of CLAP (``transformers``) as an embedder, with its features computed where the audio is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

from qd.audio.mel import MelSpectrogram
from qd.models.checkpoints.pretrained import hub_options, load_transformers
from qd.models.embedders.clip_embedder import FrozenEmbedder

CLAP = "laion/larger_clap_music"
"""The published model for music: 48 kHz, 10 s, 512 numbers."""
POWER_FLOOR = 1e-10
PADDINGS = ("repeatpad", "repeat", "pad")


class ClapFeatures(nn.Module):
    """What ``ClapFeatureExtractor`` computes in NumPy, in torch: mel power in decibels, 10 · log10(max(·, 1e-10)).

    Clips ``(batch, samples)`` of at most the model's length → ``(batch, copies, frames, mels)``. A shorter clip is
    repeated as often as it fits whole, then followed by zeros (``repeatpad``), or repeated and cut (``repeat``), or
    only followed by zeros (``pad``). A model that fuses crops of long audio (``truncation="fusion"``) gets four copies,
    and HTK's mel filters instead of Slaney's.

    Args:
        extractor: the library's, which holds the numbers.

    Raises:
        ValueError: its padding is none of these.
    """

    def __init__(self, extractor: ClapFeatureExtractor) -> None:
        super().__init__()
        if extractor.padding not in PADDINGS:
            raise ValueError(f"CLAP feature extractor: padding {extractor.padding!r}; expected {' or '.join(PADDINGS)}")
        fused = extractor.truncation == "fusion"
        self.padding, self.copies = extractor.padding, 4 if fused else 1
        self.clip_samples: int = extractor.nb_max_samples
        self.mel = MelSpectrogram(
            extractor.sampling_rate,
            extractor.fft_window_size,
            extractor.fft_window_size,
            extractor.hop_length,
            extractor.feature_size,
            f_min=extractor.frequency_min,
            f_max=extractor.frequency_max,
            htk=fused,
            norm=None if fused else "slaney",
            center=False,
        )

    def forward(self, clips: Tensor) -> Tensor:
        half = self.mel.n_fft // 2
        mirrored = F.pad(self._filled(clips.float()), (half, half), mode="reflect")
        decibels = 10 * self.mel(mirrored).clamp_min(POWER_FLOOR).log10()
        return decibels.transpose(1, 2)[:, None].expand(-1, self.copies, -1, -1)

    def _filled(self, clips: Tensor) -> Tensor:
        """The clips at the model's length."""
        times = self.clip_samples // clips.shape[1]
        if self.padding == "repeat":
            return clips.repeat(1, times + 1)[:, : self.clip_samples]
        if self.padding == "repeatpad":
            clips = clips.repeat(1, times)
        return F.pad(clips, (0, self.clip_samples - clips.shape[1]))


class ClapAudioHalf(ClapAudioModelWithProjection):
    """Takes its half of a whole model's weights, without a word about the other half."""

    _keys_to_ignore_on_load_unexpected = ["^text_model", "^text_projection", "^logit_scale"]


class ClapEmbedder(FrozenEmbedder):
    """Audio → CLAP's audio embedding, by default of 10 s at 48 kHz; silence embeds like any other sound.

    Args:
        model: the audio tower with its projection.
        extractor: the model's feature extractor.
    """

    def __init__(self, model: ClapAudioModelWithProjection, extractor: ClapFeatureExtractor) -> None:
        super().__init__(model)
        self.features = ClapFeatures(extractor)
        self._sample_rate, self._clip_seconds = extractor.sampling_rate, float(extractor.max_length_s)

    @classmethod
    def from_pretrained(cls, source: str = CLAP, local_files_only: bool = False) -> ClapEmbedder:
        """Of a hub name, or of a folder as ``ClapModel.save_pretrained`` writes it beside its feature extractor.

        Raises:
            ValueError: it cannot be had, or is no CLAP model.
        """
        options = hub_options(source, local_files_only)
        extractor = load_transformers(ClapFeatureExtractor, source, **options)
        return cls(load_transformers(ClapAudioHalf, source, **options), extractor)

    @property
    def sample_rate(self) -> int:
        """In Hz; 48,000 for the published models."""
        return self._sample_rate

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    @property
    def clip_seconds(self) -> float:
        """The model's own length; 10 for the published ones."""
        return self._clip_seconds

    def embed_clips(self, clips: Tensor) -> Tensor:
        """``(batch, samples)`` → ``(batch, embedding_width)``."""
        # No clip is longer than the model's. The library's extractor calls one of a batch so at random if it can fuse.
        is_longer = torch.zeros(len(clips), 1, dtype=torch.bool, device=clips.device)
        return self.model(input_features=self.features(clips), is_longer=is_longer).audio_embeds
