"""The scorer interface, and the paper's quality score of two scorers. Training never uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

ADHERENCE_WEIGHT = 5.0
"""ω of Section 3.1, which gives both scores a similar range."""


class Scorer(Protocol):
    """A score of generated audio; higher is better.

    Attributes:
        name: Name of the scorer.
        version: Text that changes whenever the scores may change.
        sample_rate: Sample rate in Hz; the scorer resamples other audio.
    """

    name: str
    version: str

    @property
    def sample_rate(self) -> int: ...

    def __call__(self, audio: Tensor, sample_rate: int, prompts: Sequence[str]) -> Tensor:
        """Returns scores ``(batch,)`` of ``audio`` ``(batch, samples)``; row i was generated for ``prompts[i]``."""


@dataclass(frozen=True)
class Quality:
    """s_quality = ω · s_adherence + s_preference (Section 3.1)."""

    adherence: Scorer
    preference: Scorer
    adherence_weight: float = ADHERENCE_WEIGHT

    @property
    def description(self) -> str:
        """ω, names and versions: ``5*clap@0123abcd+audiobox@CE+PQ-4567cdef``.

        :attr:`Point.scorers <qd.evaluation.points.Point>` starts with it.
        """
        adherence, preference = (f"{scorer.name}@{scorer.version}" for scorer in (self.adherence, self.preference))
        return f"{self.adherence_weight:g}*{adherence}+{preference}"

    def combine(self, adherence: Tensor, preference: Tensor) -> Tensor:
        """Returns ω · adherence + preference, elementwise."""
        return self.adherence_weight * adherence + preference


def check_rows(audio: Tensor, prompts: Sequence[str]) -> None:
    """Raises ``ValueError`` unless there is one prompt for each clip of ``audio`` ``(batch, samples)``."""
    if len(audio) != len(prompts):
        raise ValueError(f"{len(audio)} clips but {len(prompts)} prompts; give one prompt per clip")
