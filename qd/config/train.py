"""The whole config of `qd train`."""

from __future__ import annotations

from dataclasses import dataclass, field

from qd.config.checks import bounded, folder_name, unavailable
from qd.config.data import DataConfig
from qd.config.evaluation import EvaluationConfig, RewardConfig
from qd.config.objective import ObjectiveConfig, OptimizerConfig
from qd.config.policy import GuidanceConfig, ModelConfig, RolloutConfig
from qd.config.trainer import TrainerConfig
from qd.models.checkpoints.resolver import resolve_model


@dataclass
class TrainConfig:
    """``qd train``: the student of Eq. 5, maximising −KL + β·diversity."""

    name: str | None = None  # of the run folder; null = beta<β>-<date>-<time>
    seed: int = 0  # of prompts and sampling, ≥ 0
    beta: float = 15.0  # β, the weight of the diversity reward, ≥ 0; 0 = plain distillation
    model: ModelConfig = field(default_factory=ModelConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def problems(self) -> list[str]:
        """One sentence for each thing that stops a run from starting; files are looked at too."""
        parts = (self.model, self.guidance, self.rollout, self.objective, self.optimizer, self.data)
        parts += (self.evaluation, self.trainer)
        return [
            *folder_name("name", self.name),
            *bounded("seed", self.seed, 0),
            *bounded("beta", self.beta, 0),
            *(text for part in parts for text in part.problems()),
            *self._grouping_problems(),
            *self._adapter_problems(),
            *unavailable("model.name", resolve_model, self.model.name),
            *self.reward.problems(),
        ]

    def _adapter_problems(self) -> list[str]:
        if not (self.model.lora and self.trainer.sharded):
            return []
        return [
            "trainer.strategy is 'fsdp' with model.lora; expected ddp: adapters are small, and the frozen weights that "
            "they are merged into for each rollout have to be whole on every device"
        ]

    def _grouping_problems(self) -> list[str]:
        """Of N, the batch and the micro-batch together."""
        n, batch, micro = self.rollout.samples_per_prompt, self.data.batch_size, self.data.micro_batch_size
        if min(n, batch, micro) < 1:
            return []
        found = [
            f"data.{name}={size} is no multiple of rollout.samples_per_prompt={n}; all samples of a prompt go together"
            for name, size in (("batch_size", batch), ("micro_batch_size", micro))
            if size % n
        ]
        ranks = self.trainer.ranks
        if ranks > 1 and batch % micro == 0 and batch % (micro * ranks):
            found.append(
                f"data.batch_size={batch} is no multiple of {micro * ranks}, which is data.micro_batch_size={micro} "
                f"times {ranks} ranks (trainer.devices × trainer.num_nodes); change one of them"
            )
        if self.objective.baseline == "other_prompts" and micro // n * max(ranks, 1) < 2:
            found.append(
                f"objective.baseline=other_prompts needs 2 prompts or more in the micro-batches of all ranks, and "
                f"data.micro_batch_size={micro} holds {micro // n}; enlarge it or use objective.baseline=moving_average"
            )
        return found + (self._shuffled_advantages_problems(micro // n) if self.objective.shuffle_advantages else [])

    def _shuffled_advantages_problems(self, prompts: int) -> list[str]:
        """Of a micro-batch with as many prompts."""
        found = []
        if prompts < 2:
            found.append(
                "objective.shuffle_advantages needs 2 prompts or more in a micro-batch, and "
                f"data.micro_batch_size={self.data.micro_batch_size} holds {prompts}; enlarge it"
            )
        if self.objective.baseline == "other_prompts":
            found.append(
                "objective.shuffle_advantages gives each prompt the advantages of another, and "
                "objective.baseline=other_prompts would put its own rewards into them; take "
                "objective.baseline=moving_average"
            )
        return found
