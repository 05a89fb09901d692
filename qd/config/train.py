"""The whole config of `qd train`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from qd.config.checks import folder_name, unavailable
from qd.config.data import DataConfig
from qd.config.evaluation import EvaluationConfig, RewardConfig
from qd.config.objective import ObjectiveConfig, OptimizerConfig
from qd.config.policy import GuidanceConfig, ModelConfig, RolloutConfig
from qd.config.trainer import TrainerConfig
from qd.models.checkpoints.resolver import resolve_model
from qd.schema.checker import Settings
from qd.schema.setting import setting


@dataclass
class TrainConfig(Settings):
    """``qd train``: the student of Eq. 5, maximising −KL + β·diversity."""

    name: str | None = setting(None, "Name of the run folder; null: beta<β>-<date>-<time>.")
    seed: int = setting(0, "Seed of prompts and sampling.", ge=0)
    beta: float = setting(15.0, "Weight β of the diversity reward; 0: plain distillation.", ge=0)
    model: ModelConfig = field(default_factory=ModelConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from folder_name("name", self.name)
        yield from self._grouping_problems()
        if self.model.lora and self.trainer.sharded:
            yield (
                "trainer.strategy is 'fsdp' with model.lora; expected ddp: adapters are small, and each rollout merges "
                "them into frozen weights that must be complete on every device"
            )
        yield from unavailable("model.name", resolve_model, self.model.name)

    def _grouping_problems(self) -> list[str]:
        """Whether batch and micro-batch hold whole prompts, all N samples of each."""
        n, batch, micro = self.rollout.samples_per_prompt, self.data.batch_size, self.data.micro_batch_size
        if min(n, batch, micro) < 1:
            return []
        problems = [
            f"data.{name}={size} is not a multiple of rollout.samples_per_prompt={n}; it must hold whole prompts"
            for name, size in (("batch_size", batch), ("micro_batch_size", micro))
            if size % n
        ]
        ranks = self.trainer.ranks
        if ranks > 1 and batch % micro == 0 and batch % (micro * ranks):
            problems.append(
                f"data.batch_size={batch} is not a multiple of {micro * ranks}, which is data.micro_batch_size={micro} "
                f"times {ranks} ranks (trainer.devices × trainer.num_nodes); change one of them"
            )
        if self.objective.baseline == "other_prompts" and micro // n * max(ranks, 1) < 2:
            problems.append(
                f"objective.baseline=other_prompts needs 2 prompts or more in the micro-batches of all ranks, and "
                f"data.micro_batch_size={micro} holds {micro // n}; enlarge it or use objective.baseline=moving_average"
            )
        return problems + (self._shuffled_advantages_problems(micro // n) if self.objective.shuffle_advantages else [])

    def _shuffled_advantages_problems(self, prompts: int) -> list[str]:
        """Whether a micro-batch of ``prompts`` prompts allows the control experiment."""
        problems = []
        if prompts < 2:
            problems.append(
                "objective.shuffle_advantages needs 2 prompts or more in a micro-batch, and "
                f"data.micro_batch_size={self.data.micro_batch_size} holds {prompts}; enlarge it"
            )
        if self.objective.baseline == "other_prompts":
            problems.append(
                "objective.shuffle_advantages gives each prompt the advantages of another, and "
                "objective.baseline=other_prompts would put its own rewards into them; use "
                "objective.baseline=moving_average"
            )
        return problems
