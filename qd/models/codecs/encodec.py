"""The library's EnCodec with the interface of the built-in codec."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import EncodecModel

SAMPLES_AT_ONCE = 2**22
"""Audio samples that are decoded at once: a sample needs about 1 KiB between the widest layers, so this needs 4 GiB."""


class EncodecCodec(nn.Module):
    """Audio to codes and back through an ``EncodecModel``, as MusicGen checkpoints use it.

    A stereo checkpoint encodes each channel with the same mono codec and interleaves the codebooks, left first.

    Args:
        model: The library's codec.
        codebooks: Number of codebooks of the language model, over all channels.
        channels: Audio channels of the checkpoint, 1 or 2.

    Raises:
        ValueError: the codec processes audio in chunks, or has fewer codebooks than the language model.
    """

    def __init__(self, model: EncodecModel, codebooks: int, channels: int = 1):
        super().__init__()
        config = model.config
        if config.chunk_length_s is not None:
            raise ValueError(
                f"codec: chunk_length_s must be null, got {config.chunk_length_s}; chunked audio is not supported."
            )
        if codebooks > config.num_quantizers * channels:
            available = config.num_quantizers * channels
            raise ValueError(
                f"codec has {available} codebooks, the decoder needs {codebooks}; use the decoder's codec."
            )
        self.model = model
        self.channels = channels
        self.codebooks = codebooks
        self.codebook_size: int = config.codebook_size
        self.sample_rate: int = config.sampling_rate
        self.samples_per_frame: int = config.hop_length
        self.frame_rate: float = config.sampling_rate / config.hop_length

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Encodes mono audio ``(batch, samples)`` to codes ``(batch, codebooks, frames)``, repeated for stereo."""
        bandwidth = self.model.config.target_bandwidths[-1]
        codes = self.model.encode(audio[:, None], bandwidth=bandwidth).audio_codes[0]
        return codes[:, : self.codebooks // self.channels].repeat_interleave(self.channels, dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decodes codes ``(batch, codebooks, frames)`` to audio ``(batch, samples)``, averaged over channels."""
        return self.decode_channels(codes).mean(dim=1)

    @torch.no_grad()
    def decode_channels(self, codes: Tensor) -> Tensor:
        """Decodes codes ``(batch, codebooks, frames)`` to audio ``(batch, channels, samples)``, left channel first."""
        channels = [self._decode_channel(codes[:, first :: self.channels]) for first in range(self.channels)]
        return torch.stack(channels, dim=1)

    def _decode_channel(self, codes: Tensor) -> Tensor:
        clips = max(1, SAMPLES_AT_ONCE // (codes.shape[2] * self.samples_per_frame))
        pieces = [self.model.decode(piece[None], audio_scales=[None]).audio_values for piece in codes.split(clips)]
        return torch.cat(pieces).mean(dim=1)
