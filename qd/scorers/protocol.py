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
        sample_rate: at which it listens, in Hz; audio at another rate it resamples.
    """

    name: str
    version: str

    @property
    def sample_rate(self) -> int: ...

    def __call__(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Scores ``(batch,)`` of ``audio`` ``(batch, samples)``, row i asked for by ``prompts[i]``."""


@dataclass(frozen=True)
class Quality:
    """s_quality = ω · s_adherence + s_preference (Section 3.1)."""

    adherence: Scorer
    preference: Scorer
    adherence_weight: float = ADHERENCE_WEIGHT

    @property
    def description(self) -> str:
        """ω, names and versions: ``5*clap@0123abcd+audiobox@CE+PQ-4567cdef``, what
        :attr:`Point.scorers <qd.evaluation.points.Point>` begins with."""
        adherence, preference = (f"{scorer.name}@{scorer.version}" for scorer in (self.adherence, self.preference))
        return f"{self.adherence_weight:g}*{adherence}+{preference}"

    def combine(self, adherence: Tensor, preference: Tensor) -> Tensor:
        """ω · adherence + preference, elementwise."""
        return self.adherence_weight * adherence + preference


def check_rows(audio: Tensor, prompts: Sequence[str]) -> None:
    """Raises ``ValueError`` unless there is one prompt for each clip of ``audio`` ``(batch, samples)``."""
    if len(audio) != len(prompts):
        raise ValueError(f"{len(audio)} clips but {len(prompts)} prompts; give one prompt a clip")
