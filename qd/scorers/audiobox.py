"""Preference by Audiobox Aesthetics (the package ``audiobox_aesthetics``, an extra)."""

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
"""Content enjoyment and production quality, each rated from 1 to 10 by people: what is played, and how it sounds. A
listener's preference weighs both; the other two axes, usefulness and complexity, are no matter of liking."""


class AudioboxScorer(nn.Module):
    """Mean of the axes :data:`AXES` (Tjandra et al. 2025), about 1 to 10, with no affine map. It looks at no prompt.

    As the package's own predictor does it: audio is cut into windows of 10 s, the last one followed by zeros and masked
    there, and the windows' scores are averaged by their length.

    Args:
        model: an ``audiobox_aesthetics.model.aes.AesMultiOutput``.
    """

    name = "audiobox"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.version = f"{'+'.join(AXES)}-{fingerprint(model)[:8]}"
        self.eval()

    @classmethod
    def from_pretrained(cls, source: str = AUDIOBOX) -> AudioboxScorer:
        """Of a hub name, or of a folder with its files.

        Raises:
            ValueError: the extra is not installed, or the model cannot be had.
        """
        return cls(load_hub_mixin(require("audiobox_aesthetics.model.aes", "audiobox").AesMultiOutput, source))

    @property
    def sample_rate(self) -> int:
        """In Hz; other rates are resampled."""
        return SAMPLE_RATE

    @torch.no_grad()
    def forward(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)``."""
        check_rows(audio, prompts)
        windows, mask = _windows(resample(audio, sample_rate, SAMPLE_RATE), WINDOW_SECONDS * SAMPLE_RATE)
        heard = self.model({"wav": windows.flatten(0, 1)[:, None], "mask": mask.flatten(0, 1)[:, None]})
        share = mask.float().mean(dim=-1)  # (batch, windows)
        return torch.stack([self._rating(axis, heard[axis], share) for axis in AXES]).mean(dim=0)

    def _rating(self, axis: str, standard: Tensor, share: Tensor) -> Tensor:
        """Ratings ``(batch,)`` from the standardised ones of all windows ``(batch · windows,)``."""
        scale = self.model.target_transform[axis]
        ratings = (standard.float() * scale["std"] + scale["mean"]).view_as(share)
        return (ratings * share).sum(dim=1) / share.sum(dim=1)


def _windows(audio: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Windows and their mask, ``(batch, windows, length)`` each; the mask is False over the zeros at the end."""
    count = math.ceil(audio.shape[1] / length)
    shape = (len(audio), count, length)
    missing = count * length - audio.shape[1]
    mask = F.pad(torch.ones_like(audio, dtype=torch.bool), (0, missing))
    return F.pad(audio, (0, missing)).view(shape), mask.view(shape)
