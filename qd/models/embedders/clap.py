"""The audio tower of CLAP (``transformers``) as an embedder, with features computed on the device of the audio."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

from qd.audio.mel import MelSpectrogram
from qd.models.checkpoints.pretrained import hub_options, load_transformers
from qd.models.embedders.clip_embedder import FrozenEmbedder

CLAP = "laion/larger_clap_music"
"""The published model for music: 48 kHz, clips of 10 s, embeddings of length 512."""
POWER_FLOOR = 1e-10
PADDINGS = ("repeatpad", "repeat", "pad")


class ClapFeatures(nn.Module):
    """``ClapFeatureExtractor`` in torch instead of NumPy: mel power in decibels, 10 · log10(max(·, 1e-10)).

    Maps clips ``(batch, samples)`` of at most the model's length to ``(batch, copies, frames, mels)``. A shorter clip
    is repeated as often as it fits entirely and then padded with zeros (``repeatpad``), or repeated and cut
    (``repeat``), or only padded with zeros (``pad``). A model that fuses crops of long audio (``truncation="fusion"``)
    gets four copies, and HTK's mel filters instead of Slaney's.

    Args:
        extractor: The library's extractor, which holds the settings.

    Raises:
        ValueError: the extractor has another padding mode.
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
        """Extends the clips to the model's length."""
        times = self.clip_samples // clips.shape[1]
        if self.padding == "repeat":
            return clips.repeat(1, times + 1)[:, : self.clip_samples]
        if self.padding == "repeatpad":
            clips = clips.repeat(1, times)
        return F.pad(clips, (0, self.clip_samples - clips.shape[1]))


class ClapAudioHalf(ClapAudioModelWithProjection):
    """Loads the audio part of a complete model's weights, without warnings about the text part."""

    _keys_to_ignore_on_load_unexpected = ["^text_model", "^text_projection", "^logit_scale"]


class ClapEmbedder(FrozenEmbedder):
    """CLAP's audio embedding, by default of 10 s at 48 kHz; the embedding of silence is finite.

    Args:
        model: Audio tower with its projection.
        extractor: The model's feature extractor.
    """

    def __init__(self, model: ClapAudioModelWithProjection, extractor: ClapFeatureExtractor) -> None:
        super().__init__(model)
        self.features = ClapFeatures(extractor)
        self._sample_rate, self._clip_seconds = extractor.sampling_rate, float(extractor.max_length_s)

    @classmethod
    def from_pretrained(cls, source: str = CLAP, local_files_only: bool = False) -> ClapEmbedder:
        """Loads a hub name, or a folder with the model (``ClapModel.save_pretrained``) and its feature extractor.

        Raises:
            ValueError: the model cannot be loaded, or is not a CLAP model.
        """
        options = hub_options(source, local_files_only)
        extractor = load_transformers(ClapFeatureExtractor, source, **options)
        return cls(load_transformers(ClapAudioHalf, source, **options), extractor)

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz; 48,000 for the published models."""
        return self._sample_rate

    @property
    def embedding_width(self) -> int:
        """Length of an embedding vector."""
        return self.model.config.projection_dim

    @property
    def clip_seconds(self) -> float:
        """Longest clip of the model, in seconds; 10 for the published models."""
        return self._clip_seconds

    def embed_clips(self, clips: Tensor) -> Tensor:
        """Embeds clips ``(batch, samples)``; returns ``(batch, embedding_width)``."""
        # No clip is longer than the model's length. For a fusing model, the library's extractor marks one random clip
        # of a batch as longer.
        is_longer = torch.zeros(len(clips), 1, dtype=torch.bool, device=clips.device)
        return self.model(input_features=self.features(clips), is_longer=is_longer).audio_embeds
