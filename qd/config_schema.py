"""What a training run can be told: every setting with its unit and range, and what makes a value unusable."""

from __future__ import annotations

from dataclasses import dataclass, field

from qd.config_checks import bounded, folder_name, fraction, one_of, positive, present_device, unreadable
from qd.data.prompt_files import read_prompts
from qd.data.prompts import BLOCK
from qd.evaluation.protocols import PROTOCOLS
from qd.models.embedder import load_embedder
from qd.models.resolver import resolve_model
from qd.objectives.baselines import BASELINES
from qd.objectives.policy_gradient import ESTIMATORS

PRECISIONS = ("32-true", "bf16-mixed")
SOURCE_KINDS = ("builtin", "text", "csv")


@dataclass
class ModelConfig:
    name: str = "base"  # "base" (the built-in one), a folder, a run, or a name on the Hugging Face hub


@dataclass
class GuidanceConfig:
    scale: float = 3.0  # γ of the teacher, Eq. 1; 1 = no guidance
    negative_prompt: str | None = "Bad audio quality."  # null = unconditional guidance

    def problems(self) -> list[str]:
        return bounded("guidance.scale", self.scale)


@dataclass
class RolloutConfig:
    seconds: float = 4.0  # length of a sampled clip, > 0
    temperature: float = 0.99  # T of sampling, of the KL and of log p alike, > 0
    samples_per_prompt: int = 8  # N, ≥ 2

    def problems(self) -> list[str]:
        return [
            *positive("rollout.seconds", self.seconds),
            *positive("rollout.temperature", self.temperature),
            *bounded("rollout.samples_per_prompt", self.samples_per_prompt, 2),
        ]


@dataclass
class ObjectiveConfig:
    estimator: str = "pairs"  # of the policy gradient: "shared" (Appendix A) or "pairs" (pairs-of-j)
    baseline: str = "prompt_moving_average"  # subtracted from the reward; a name of qd.objectives.baselines.BASELINES
    baseline_decay: float = 0.9  # of the moving averages, in [0, 1)
    exact_kl_gradient: bool = False  # add the score-function term of the KL's gradient
    beta_ramp_steps: int = 1000  # β rises from 0 to its value over as many steps, ≥ 0

    def problems(self) -> list[str]:
        return [
            *one_of("objective.estimator", self.estimator, ESTIMATORS),
            *one_of("objective.baseline", self.baseline, BASELINES),
            *fraction("objective.baseline_decay", self.baseline_decay),
            *bounded("objective.beta_ramp_steps", self.beta_ramp_steps, 0),
        ]


@dataclass
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 1.5e-4  # > 0
    weight_decay: float = 0.0  # ≥ 0
    beta1: float = 0.9  # in [0, 1)
    beta2: float = 0.999  # in [0, 1)
    gradient_clip: float = 1.0  # largest L2 norm of the gradient; 0 = no clipping
    warmup_steps: int = 0  # linear from 0 to the learning rate, then constant; ≥ 0

    def problems(self) -> list[str]:
        return [
            *positive("optimizer.learning_rate", self.learning_rate),
            *bounded("optimizer.weight_decay", self.weight_decay, 0),
            *fraction("optimizer.beta1", self.beta1),
            *fraction("optimizer.beta2", self.beta2),
            *bounded("optimizer.gradient_clip", self.gradient_clip, 0),
            *bounded("optimizer.warmup_steps", self.warmup_steps, 0),
        ]


@dataclass
class PromptSource:
    kind: str = "builtin"  # "builtin" (the grammar), "text" (one prompt a line) or "csv" (one prompt a row)
    path: str | None = None  # of the text or CSV file, UTF-8
    column: str | None = None  # of the CSV file
    weight: float = 1.0  # share of the mixture, relative to the other sources, > 0
    size: int | None = None  # use only the first so many prompts, which then repeat; null = all there are

    def problems(self, path: str) -> list[str]:
        found = [
            *one_of(f"{path}.kind", self.kind, SOURCE_KINDS),
            *positive(f"{path}.weight", self.weight),
            *(bounded(f"{path}.size", self.size, 1) if self.size is not None else []),
        ]
        needed = {"text": ("path",), "csv": ("path", "column")}.get(self.kind, ())
        unused = [name for name in ("path", "column") if getattr(self, name) and name not in needed]
        found += [f"{path}.{name} is given, and a source of kind {self.kind!r} has none; change one" for name in unused]
        missing = [name for name in needed if not getattr(self, name)]
        found += [f"{path}.{name} is missing; a source of kind {self.kind!r} needs it" for name in missing]
        return found if missing or not needed else found + unreadable(path, self.path, self.column)


@dataclass
class DataConfig:
    batch_size: int = 16  # sequences an optimiser step, over all ranks and accumulated micro-batches
    micro_batch_size: int = 16  # sequences a rank holds at once; all N samples of a prompt are in one
    prompts: list[PromptSource] = field(default_factory=lambda: [PromptSource(size=256)])  # weighted mixture

    def problems(self) -> list[str]:
        found = [
            *bounded("data.batch_size", self.batch_size, 1),
            *bounded("data.micro_batch_size", self.micro_batch_size, 1),
            *([] if self.prompts else ["data.prompts is empty; give a source, for example [{kind: builtin}]"]),
        ]
        if not found and self.batch_size % self.micro_batch_size:
            found.append(
                f"data.batch_size={self.batch_size} is no multiple of data.micro_batch_size={self.micro_batch_size}"
            )
        total = sum(source.weight for source in self.prompts)
        for i, source in enumerate(self.prompts):
            found += source.problems(f"data.prompts[{i}]")
            if 0 < source.weight < total / BLOCK:
                found.append(f"data.prompts[{i}].weight is {source.weight}; expected 1/{BLOCK} of all weights or more")
        return found


@dataclass
class RewardConfig:
    embedder: str = "builtin"  # what the reward hears: "builtin", or the folder of an embedder or of its run
    heldout_embedder: str = "builtin-heldout"  # for measuring only: no reward hears it


@dataclass
class EvaluationConfig:
    every: int = 500  # steps between points; there is always one at step 0 and one at the end; ≥ 1
    protocol: str = "quick"  # a name of qd.evaluation.protocols.PROTOCOLS
    prompts: str | None = None  # text file, one prompt a line; null = the protocol's own
    n_prompts: int | None = None  # ≥ 2; null = the protocol's own
    n_samples: int | None = None  # a prompt, ≥ 2; null = the protocol's own
    audio_prompts: int = 4  # prompts whose samples can be heard in TensorBoard, ≥ 0
    siblings: bool = True  # draw the other runs of the runs folder too

    def problems(self) -> list[str]:
        return [
            *bounded("evaluation.every", self.every, 1),
            *one_of("evaluation.protocol", self.protocol, PROTOCOLS),
            *self._prompt_problems(),
            *(bounded("evaluation.n_prompts", self.n_prompts, 2) if self.n_prompts is not None else []),
            *(bounded("evaluation.n_samples", self.n_samples, 2) if self.n_samples is not None else []),
            *bounded("evaluation.audio_prompts", self.audio_prompts, 0),
        ]

    def _prompt_problems(self) -> list[str]:
        if self.prompts is None:
            return []
        if found := unreadable("evaluation.prompts", self.prompts):
            return found
        held, needed = len(read_prompts(self.prompts)), self.n_prompts or 2
        few = f"evaluation.prompts: {self.prompts!r} holds {held} prompts, and {needed} are needed; add lines"
        return [few] if held < needed else []


@dataclass
class TrainerConfig:
    max_steps: int = 2000  # optimiser steps, ≥ 1
    device: str = "auto"  # auto, cpu, mps, cuda or cuda:<index>
    precision: str = "32-true"  # Lightning's name: one of PRECISIONS
    log_every: int = 10  # steps between scalars in TensorBoard, ≥ 1
    checkpoint_every: int = 100  # steps between writes of last.ckpt, ≥ 1
    save_weights_every: int = 500  # steps between step folders, ≥ 1
    keep_weights: int | None = None  # step folders kept, the newest ones, ≥ 1; null = all
    runs: str = "runs"  # the folder that holds the run folders

    def problems(self) -> list[str]:
        return [
            *bounded("trainer.max_steps", self.max_steps, 1),
            *present_device("trainer.device", self.device),
            *one_of("trainer.precision", self.precision, PRECISIONS),
            *bounded("trainer.log_every", self.log_every, 1),
            *bounded("trainer.checkpoint_every", self.checkpoint_every, 1),
            *bounded("trainer.save_weights_every", self.save_weights_every, 1),
            *(bounded("trainer.keep_weights", self.keep_weights, 1) if self.keep_weights is not None else []),
        ]


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
        parts = (self.guidance, self.rollout, self.objective, self.optimizer, self.data, self.evaluation, self.trainer)
        return [
            *folder_name("name", self.name),
            *bounded("seed", self.seed, 0),
            *bounded("beta", self.beta, 0),
            *(text for part in parts for text in part.problems()),
            *self._grouping_problems(),
            *self._missing_models(),
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
        if self.objective.baseline == "other_prompts" and micro // n < 2:
            found.append(
                f"objective.baseline=other_prompts needs 2 prompts or more in a micro-batch, and "
                f"data.micro_batch_size={micro} holds {micro // n}; enlarge it or use objective.baseline=moving_average"
            )
        return found

    def _missing_models(self) -> list[str]:
        found = []
        for path, load, name in (
            ("model.name", resolve_model, self.model.name),
            ("reward.embedder", load_embedder, self.reward.embedder),
            ("reward.heldout_embedder", load_embedder, self.reward.heldout_embedder),
        ):
            try:
                load(name)
            except (ValueError, OSError) as error:
                found.append(f"{path}: {error}")
        return found
