"""The scorer interface, and the paper's quality score of two scorers. Training never uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class Thresholds(NamedTuple):
    """Least scores of the clips that count for the diversity of good clips.

    The shipped scorers give real held-out clips, half of them degraded, a mean of 0. A preference of 0 separates clean
    recordings from degraded ones.

    Attributes:
        clean: Least preference of a clip that counts as clean.
        quality: Least quality of a clip that counts as effective.
    """

    clean: float = 0.0
    quality: float = 0.0

    @property
    def unusual(self) -> list[str]:
        """``clean>=0.5`` for each threshold that is not the default."""
        usual = Thresholds()._asdict()
        return [f"{name}>={value!r}" for name, value in self._asdict().items() if value != usual[name]]
