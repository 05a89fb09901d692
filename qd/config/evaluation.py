"""The reward's embedder, and how a policy is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qd.config.checks import unavailable, unreadable
from qd.config.protocols import PROTOCOLS, Protocol, build_protocol
from qd.data.prompt_files import PromptFile
from qd.data.world.world import BUILTIN
from qd.models.embedders.loading import check_embedder
from qd.schema.checker import Settings
from qd.schema.setting import setting
from qd.scorers.loading import check_adherence, check_preference
from qd.scorers.protocol import ADHERENCE_WEIGHT, Thresholds

EMBEDDERS = "builtin, builtin-heldout, a folder, a run, clap:<…> or muq:<…>"
"""Names of embedders, for help texts."""


@dataclass
class RewardConfig(Settings):
    """The embedders of the diversity reward and of its measurement."""

    embedder: str = setting(BUILTIN, f"Embedder of the diversity reward: {EMBEDDERS}.")
    eval_embedder: str = setting("builtin-heldout", "Second embedder, for measuring only; no reward uses it.")

    def rules(self, prefix: str) -> Iterator[str]:
        yield from unavailable(f"{prefix}embedder", check_embedder, self.embedder)
        yield from unavailable(f"{prefix}eval_embedder", check_embedder, self.eval_embedder)


@dataclass
class ScoringConfig(Settings):
    """Prompts and scorers of a measurement: the same for a run, for `qd evaluate` and for `qd sweep`."""

    protocol: str = setting(
        "quick",
        "Protocol: full (101 prompts × 4 samples), paper (101 × 8), two-samples (50 × 2) or quick (32 × 4).",
        choices=PROTOCOLS,
    )
    prompts: str | None = setting(
        None,
        "Prompts: a .txt file of one prompt a line, .csv[:column], .jsonl[:key], musiccaps:FILE, song-describer:FILE, "
        "or generic (a shipped list); null: the protocol's own.",
    )
    n_prompts: int | None = setting(None, "Number of prompts; null: the protocol's own, or all of the file.", ge=2)
    n_samples: int | None = setting(None, "Number of samples of each prompt; null: the protocol's own.", ge=2)
    eval_batch_size: int = setting(32, "Sequences sampled and embedded at once; limits memory.", unit="sequences", ge=1)
    audio_prompts: int = setting(4, "Number of prompts whose first two samples are saved as audio.", ge=0)
    adherence: str = setting(
        BUILTIN, "Scorer of text adherence: builtin, clap:<hub name or folder> or muq-mulan:<hub name or folder>."
    )
    preference: str = setting(
        BUILTIN, "Scorer of preference: builtin, audiobox:<hub name or folder>, or the folder of a trained scorer."
    )
    adherence_weight: float = setting(
        ADHERENCE_WEIGHT, "Weight ω in quality = ω · adherence + preference; see `qd scorer-ranges`.", ge=0
    )

    def protocol_for(self, seconds: float) -> Protocol:
        """The protocol that the settings describe, with clips of ``seconds``."""
        return build_protocol(
            self.protocol,
            n_prompts=self.n_prompts,
            n_samples=self.n_samples,
            seconds=seconds,
            prompts_file=self.prompts,
        )

    def rules(self, prefix: str) -> Iterator[str]:
        yield from self._prompt_problems(f"{prefix}prompts")
        yield from unavailable(f"{prefix}adherence", check_adherence, self.adherence)
        yield from unavailable(f"{prefix}preference", check_preference, self.preference)

    def _prompt_problems(self, path: str) -> list[str]:
        if self.prompts is None:
            return []
        file = PromptFile.parse(self.prompts)
        if problems := unreadable(path, file):
            return problems
        count, needed = len(file.read().texts), self.n_prompts or 2
        few = f"{path}: {self.prompts!r} holds {count} prompts, and {needed} are needed; add lines"
        return [few] if count < needed else []


@dataclass
class PointConfig(ScoringConfig):
    """What a point of `points.jsonl` has besides its scores: the same for a run, `qd evaluate` and `qd sweep`."""

    clean_threshold: float = setting(
        Thresholds().clean, "Least preference of the clips that diversity_clean counts; 0 suits the shipped scorer."
    )
    quality_threshold: float = setting(
        Thresholds().quality, "Least quality of the clips that diversity_effective counts; 0 suits the shipped scorers."
    )
    facets: bool = setting(
        False, "Whether to measure musical facets too, such as tempo and chroma; about 10 ms a clip on one core."
    )

    @property
    def thresholds(self) -> Thresholds:
        """Least scores of clips that count as clean, or as effective."""
        return Thresholds(self.clean_threshold, self.quality_threshold)


@dataclass
class EvaluationConfig(PointConfig):
    """Measurements during training."""

    every: int = setting(
        500, "Interval between measured points; step 0 and the last step are always measured.", unit="steps", ge=1
    )
    siblings: bool = setting(True, "Whether the Pareto figure shows the other runs of the runs folder too.")
