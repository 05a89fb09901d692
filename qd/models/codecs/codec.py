"""The built-in codec: it works on frames of a mel spectrogram instead of samples, so a CPU can train and run it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from qd.audio.chunks import cached_rows, map_chunks
from qd.audio.mel import MelSpectrogram
from qd.models.checkpoints.json_files import read_object
from qd.models.checkpoints.resolver import ASSETS, resolve_model
from qd.models.checkpoints.sizes import load_checked
from qd.models.codecs.layers import ConvNeXtBlock, Downsample, InverseSTFTHead, Upsample
from qd.models.codecs.quantizer import ResidualQuantizer
from qd.schema.setting import setting
from qd.schema.stored import from_stored

LOG_MEL_MEAN, LOG_MEL_SCALE = -4.3, 3.0
"""Mean and standard deviation of the built-in world's log-mel magnitudes, rounded; they standardise the input."""


@dataclass
class CodecConfig:
    """Architecture of :class:`FrameCodec`."""

    sample_rate: int = setting(16_000, "Sample rate of the audio.", unit="Hz", ge=1, le=384_000)
    hop_length: int = setting(320, "Distance between mel frames.", unit="samples", ge=1, le=65_536)
    n_fft: int = setting(1280, "FFT size.", unit="samples", ge=1, le=65_536)
    n_mels: int = setting(100, "Number of mel filters.", ge=1, le=1024)
    stride: int = setting(2, "Mel frames of one frame of codes.", unit="frames", ge=1, le=64)
    width: int = setting(256, "Width of the network.", ge=1, le=16_384)
    expansion: int = setting(2, "Width of a block's hidden layer relative to the network's.", ge=1, le=16)
    encoder_depths: tuple[int, int] = setting((1, 2), "Encoder blocks before and after the stride.", ge=0, le=64)
    decoder_depths: tuple[int, int] = setting((2, 4), "Decoder blocks before and after the upsampling.", ge=0, le=64)
    latent_width: int = setting(64, "Width of the quantised vectors.", ge=1, le=16_384)
    codebooks: int = setting(4, "Number of codebooks.", ge=1, le=64)
    codebook_size: int = setting(512, "Number of entries of a codebook.", ge=1, le=65_536)

    @property
    def samples_per_frame(self) -> int:
        """Number of audio samples per frame of codes."""
        return self.hop_length * self.stride

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / self.samples_per_frame


@dataclass
class CodecOutput:
    """``audio (batch, frames · samples_per_frame)``, ``codes (batch, codebooks, frames)``, scalar commitment loss."""

    audio: Tensor
    codes: Tensor
    commitment_loss: Tensor


class FrameCodec(nn.Module):
    """Log-mel spectrogram → ConvNeXt blocks around a strided bottleneck → residual quantiser → inverse STFT.

    Audio is ``(batch, samples)`` at ``sample_rate``, padded with zeros to complete frames; codes are
    ``(batch, codebooks, frames)``. With the default config, 4 s are 100 frames of 640 samples.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate, self.frame_rate = config.sample_rate, config.frame_rate
        self.samples_per_frame = config.samples_per_frame
        self.codebooks, self.codebook_size = config.codebooks, config.codebook_size
        self.mel = MelSpectrogram(
            config.sample_rate,
            config.n_fft,
            config.n_fft,
            config.hop_length,
            config.n_mels,
            power=1.0,
            htk=False,
            norm="slaney",
            log=True,
            center=False,
        )
        self.encoder = nn.Sequential(
            nn.Linear(config.n_mels, config.width),
            *_blocks(config, config.encoder_depths[0]),
            Downsample(config.width, config.stride),
            *_blocks(config, config.encoder_depths[1]),
            nn.LayerNorm(config.width),
        )
        self.quantizer = ResidualQuantizer(config.width, config.latent_width, config.codebooks, config.codebook_size)
        self.decoder = nn.Sequential(
            nn.LayerNorm(config.width),
            *_blocks(config, config.decoder_depths[0]),
            Upsample(config.width, config.stride),
            *_blocks(config, config.decoder_depths[1]),
            nn.LayerNorm(config.width),
            InverseSTFTHead(config.width, config.n_fft, config.hop_length),
        )

    def forward(self, audio: Tensor) -> CodecOutput:
        """Reconstructs audio with gradients; in training mode the codebooks are updated."""
        quantized = self.quantizer(self._features(audio))
        return CodecOutput(self.decoder(quantized.vectors), quantized.codes, quantized.commitment_loss)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Encodes audio ``(batch, samples)``; returns codes ``(batch, codebooks, ⌈samples / samples_per_frame⌉)``."""
        return self.quantizer.encode(self._features(audio))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decodes codes ``(batch, codebooks, frames)``; returns float32 audio ``(batch, frames · samples_per_frame)``.

        Raises:
            ValueError: the number of codebooks is wrong, or a code is outside the codebook (such as the pad token).
        """
        if codes.ndim != 3 or codes.shape[1] != self.codebooks:
            raise ValueError(f"codes of shape {tuple(codes.shape)}: expected (batch, {self.codebooks}, frames)")
        # Not on a GPU, where the check would block; there the embedding look-up itself rejects invalid codes.
        if codes.device.type == "cpu" and codes.numel() and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError(
                f"codes from {int(codes.min())} to {int(codes.max())}: expected 0 to {self.codebook_size - 1}; "
                "undo the delay pattern and drop pad tokens first"
            )
        frames = codes.shape[2] * self.config.stride
        return map_chunks(lambda chunk: self.decoder(self.quantizer.decode(chunk)), codes, cached_rows(codes, frames))

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (floats in float16 if ``half``)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")
        state = {
            name: tensor.half() if half and tensor.is_floating_point() else tensor
            for name, tensor in self.state_dict().items()
        }
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> FrameCodec:
        """Loads the output of :meth:`save_pretrained` in float32 and eval mode.

        Raises:
            ValueError: the folder lacks one of the two files, or they are damaged or do not fit each other.
        """
        folder = Path(folder)
        missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
        if missing:
            raise ValueError(
                f"{folder} has no {' and no '.join(missing)}: expected a folder that save_pretrained wrote"
            )
        config = from_stored(CodecConfig, read_object(folder / "config.json"), str(folder / "config.json"))
        return load_checked(lambda: cls(config), folder / "model.safetensors", lambda codec: codec).eval()

    def _features(self, audio: Tensor) -> Tensor:
        """Maps audio ``(batch, samples)`` to the encoder output ``(batch, frames, width)``."""
        if audio.ndim != 2 or audio.shape[1] == 0:
            raise ValueError(f"audio of shape {tuple(audio.shape)}: expected (batch, samples), at least one sample")
        # Half a window minus half a hop on both sides centres frame t on the middle of its hop.
        margin = (self.config.n_fft - self.config.hop_length) // 2
        missing = -audio.shape[1] % self.samples_per_frame
        log_mel = self.mel(F.pad(audio, (margin, margin + missing)))
        return self.encoder(((log_mel - LOG_MEL_MEAN) / LOG_MEL_SCALE).transpose(1, 2))


def load_codec(name_or_folder: str | Path) -> FrameCodec:
    """Loads the codec from its folder, or from a built-in model by its name (``base``, ``runs/x``).

    Raises:
        ValueError: there is no codec.
    """
    if str(name_or_folder) == "base":
        # Without the resolver, because the codec is trained before the other parts of the base model exist.
        return FrameCodec.from_pretrained(ASSETS / "base" / "codec")
    folder = Path(name_or_folder)
    if not (folder / "model.safetensors").is_file():
        folder = Path(resolve_model(name_or_folder)) / "codec"
    return FrameCodec.from_pretrained(folder)


def _blocks(config: CodecConfig, depth: int) -> list[ConvNeXtBlock]:
    return [ConvNeXtBlock(config.width, config.expansion) for _ in range(depth)]
