"""What the reward hears, and how a policy is measured."""

from __future__ import annotations

from dataclasses import dataclass

from qd.config.checks import bounded, one_of, unavailable, unreadable
from qd.config.protocols import PROTOCOLS, Protocol, build_protocol
from qd.data.prompt_files import PromptFile
from qd.models.embedders.loading import check_embedder
from qd.scorers.loading import check_adherence, check_preference
from qd.scorers.protocol import ADHERENCE_WEIGHT


@dataclass
class RewardConfig:
    embedder: str = "builtin"  # what the reward hears: any name of qd.models.embedders.loading.load_embedder
    eval_embedder: str = "builtin-heldout"  # for measuring only: no reward hears it

    def problems(self) -> list[str]:
        return [
            *unavailable("reward.embedder", check_embedder, self.embedder),
            *unavailable("reward.eval_embedder", check_embedder, self.eval_embedder),
        ]


@dataclass
class ScoringConfig:
    """On what a policy is measured, and who judges it: the same for a run, for `qd evaluate` and for `qd sweep`."""

    protocol: str = "quick"  # a name of qd.config.protocols.PROTOCOLS
    prompts: str | None = None  # a file in any format of qd.data.prompt_files, or "generic"; null = the protocol's own
    n_prompts: int | None = None  # ≥ 2; null = the protocol's own, or all of `prompts`
    n_samples: int | None = None  # a prompt, ≥ 2; null = the protocol's own
    eval_batch_size: int = 32  # sequences sampled and heard at once, ≥ 1; a matter of memory
    audio_prompts: int = 4  # prompts whose first two samples are kept, to be heard side by side, ≥ 0
    adherence: str = "builtin"  # or clap:<hub name or folder>, muq-mulan:<hub name or folder>: how far a prompt is met
    preference: str = "builtin"  # or audiobox:<hub name or folder>, or the folder of a trained preference scorer
    adherence_weight: float = ADHERENCE_WEIGHT  # ω of quality = ω · adherence + preference, ≥ 0; see `qd scorer-ranges`

    def protocol_for(self, seconds: float) -> Protocol:
        """The protocol that the settings describe, with clips of ``seconds``."""
        return build_protocol(
            self.protocol,
            n_prompts=self.n_prompts,
            n_samples=self.n_samples,
            seconds=seconds,
            prompts_file=self.prompts,
        )

    def scoring_problems(self, prefix: str = "") -> list[str]:
        """Every bad value of the above, one sentence each; ``prefix`` stands before a key: "evaluation."."""
        return [
            *one_of(f"{prefix}protocol", self.protocol, PROTOCOLS),
            *self._prompt_problems(f"{prefix}prompts"),
            *(bounded(f"{prefix}n_prompts", self.n_prompts, 2) if self.n_prompts is not None else []),
            *(bounded(f"{prefix}n_samples", self.n_samples, 2) if self.n_samples is not None else []),
            *bounded(f"{prefix}eval_batch_size", self.eval_batch_size, 1),
            *bounded(f"{prefix}audio_prompts", self.audio_prompts, 0),
            *bounded(f"{prefix}adherence_weight", self.adherence_weight, 0),
            *unavailable(f"{prefix}adherence", check_adherence, self.adherence),
            *unavailable(f"{prefix}preference", check_preference, self.preference),
        ]

    def _prompt_problems(self, path: str) -> list[str]:
        if self.prompts is None:
            return []
        file = PromptFile.parse(self.prompts)
        if found := unreadable(path, file):
            return found
        held, needed = len(file.read().texts), self.n_prompts or 2
        few = f"{path}: {self.prompts!r} holds {held} prompts, and {needed} are needed; add lines"
        return [few] if held < needed else []


@dataclass
class EvaluationConfig(ScoringConfig):
    every: int = 500  # steps between points; there is always one at step 0 and one at the end; ≥ 1
    siblings: bool = True  # draw the other runs of the runs folder too

    def problems(self) -> list[str]:
        return [*bounded("evaluation.every", self.every, 1), *self.scoring_problems("evaluation.")]
