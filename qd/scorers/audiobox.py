"""Preference scores from Audiobox Aesthetics (extra ``audiobox``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qd.audio.resample import resample
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.checkpoints.pretrained import load_hub_mixin
from qd.runs.extras import require
from qd.scorers.protocol import check_rows

AUDIOBOX = "facebook/audiobox-aesthetics"
SAMPLE_RATE = 16_000
WINDOW_SECONDS = 10
AXES = ("CE", "PQ")
"""Content enjoyment and production quality, which people rated from 1 to 10. A preference depends on both; the other
two axes, usefulness and complexity, do not measure preference."""


class AudioboxScorer(nn.Module):
    """Mean of the axes :data:`AXES` (Tjandra et al. 2025), about 1 to 10, without an affine map; it ignores prompts.

    Like the package's own predictor, it cuts audio into windows of 10 s, pads the last one with masked zeros, and
    averages the windows' scores weighted by length.

    Args:
        model: An ``audiobox_aesthetics.model.aes.AesMultiOutput``.
    """

    name = "audiobox"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.version = f"{'+'.join(AXES)}-{fingerprint(model)[:8]}"
        self.eval()

    @classmethod
    def from_pretrained(cls, source: str = AUDIOBOX) -> AudioboxScorer:
        """Loads a hub name, or a folder with the model's files.

        Raises:
            ValueError: the extra is not installed, or the model cannot be loaded.
        """
        return cls(load_hub_mixin(require("audiobox_aesthetics.model.aes", "audiobox").AesMultiOutput, source))

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz; other rates are resampled."""
        return SAMPLE_RATE

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Returns scores ``(batch,)``."""
        check_rows(audio, prompts)
        windows, mask = _windows(resample(audio, sample_rate, SAMPLE_RATE), WINDOW_SECONDS * SAMPLE_RATE)
        ratings = self.model({"wav": windows.flatten(0, 1)[:, None], "mask": mask.flatten(0, 1)[:, None]})
        share = mask.float().mean(dim=-1)  # (batch, windows)
        return torch.stack([self._rating(axis, ratings[axis], share) for axis in AXES]).mean(dim=0)

    def _rating(self, axis: str, standardised: Tensor, share: Tensor) -> Tensor:
        """Converts the standardised ratings of all windows ``(batch · windows,)`` to ratings ``(batch,)``."""
        scale = self.model.target_transform[axis]
        ratings = (standardised.float() * scale["std"] + scale["mean"]).view_as(share)
        return (ratings * share).sum(dim=1) / share.sum(dim=1)


def _windows(audio: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns windows and their mask, each ``(batch, windows, length)``; the mask is False at the padding."""
    count = math.ceil(audio.shape[1] / length)
    shape = (len(audio), count, length)
    missing = count * length - audio.shape[1]
    mask = F.pad(torch.ones_like(audio, dtype=torch.bool), (0, missing))
    return F.pad(audio, (0, missing)).view(shape), mask.view(shape)
