"""What evaluation asks of a judge, and the paper's quality score made of two judges. Never used in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

ADHERENCE_WEIGHT = 5.0
"""ω of Section 3.1, which brings both scores to a similar range."""


class Scorer(Protocol):
    """A judge of generated audio; higher is better.

    Attributes:
        name: which judge. version: changes whenever its scores could.
    """

    name: str
    version: str

    def __call__(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)`` of ``audio`` ``(batch, samples)``, row i asked for by ``prompts[i]``."""


@dataclass(frozen=True)
class Quality:
    """s_quality = 5 · s_adherence + s_preference (Section 3.1), itself a :class:`Scorer`."""

    adherence: Scorer
    preference: Scorer

    @property
    def name(self) -> str:
        """Both names: what :attr:`Point.scorers <qd.evaluation.points.Point>` begins with."""
        return f"5*{self.adherence.name}+{self.preference.name}"

    @property
    def version(self) -> str:
        """Both versions."""
        return f"{self.adherence.version}+{self.preference.version}"

    def __call__(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Quality ``(batch,)``."""
        adherence = self.adherence(audio, sample_rate, prompts)
        return quality(adherence, self.preference(audio, sample_rate, prompts))


def quality(adherence: Tensor, preference: Tensor) -> Tensor:
    """5 · adherence + preference, elementwise."""
    return ADHERENCE_WEIGHT * adherence + preference
