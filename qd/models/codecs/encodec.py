"""The library's EnCodec behind the interface of the built-in codec."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import EncodecModel

SAMPLES_AT_ONCE = 2**22
"""Of audio that is decoded at once: each takes a kilobyte between the widest layers, and 13 clips of 10 s 4 GiB."""


class EncodecCodec(nn.Module):
    """Audio to codes and back through an ``EncodecModel``, as MusicGen checkpoints use it.

    A stereo checkpoint codes each channel with the same mono codec and interleaves the codebooks, left first.

    Args:
        model: the library's codec.
        codebooks: number of codebooks that the language model reads, over all channels.
        channels: audio channels of the checkpoint, 1 or 2.

    Raises:
        ValueError: if the codec cuts audio into chunks, or has fewer codebooks than the language model.
    """

    def __init__(self, model: EncodecModel, codebooks: int, channels: int = 1):
        super().__init__()
        config = model.config
        if config.chunk_length_s is not None:
            raise ValueError(
                f"codec: chunk_length_s must be null, got {config.chunk_length_s}; one stream is expected."
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
        """Mono audio ``(batch, samples)`` to codes ``(batch, codebooks, frames)``; both channels get it in stereo."""
        bandwidth = self.model.config.target_bandwidths[-1]
        codes = self.model.encode(audio[:, None], bandwidth=bandwidth).audio_codes[0]
        return codes[:, : self.codebooks // self.channels].repeat_interleave(self.channels, dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, codebooks, frames)`` to audio ``(batch, samples)``, the mean over channels."""
        return self.decode_channels(codes).mean(dim=1)

    @torch.no_grad()
    def decode_channels(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, codebooks, frames)`` to audio ``(batch, channels, samples)``, left first."""
        channels = [self._decode_channel(codes[:, first :: self.channels]) for first in range(self.channels)]
        return torch.stack(channels, dim=1)

    def _decode_channel(self, codes: Tensor) -> Tensor:
        clips = max(1, SAMPLES_AT_ONCE // (codes.shape[2] * self.samples_per_frame))
        pieces = [self.model.decode(piece[None], audio_scales=[None]).audio_values for piece in codes.split(clips)]
        return torch.cat(pieces).mean(dim=1)
