"""The policy: which model, under which guidance it is the teacher, and how it is sampled."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from qd.config.checks import bounded, one_of, positive
from qd.models.checkpoints.resolver import SHIPPED
from qd.models.lora import LAYERS
from qd.runs.extras import install_command

DTYPES = ("float32", "bfloat16")


@dataclass
class LoraConfig:
    """Low-rank adapters; the extra ``lora``."""

    rank: int = 16  # of the adapters' matrices, ≥ 1
    alpha: float = 32.0  # their scale is alpha / rank, > 0
    dropout: float = 0.0  # only 0: scores would no longer be those of the policy that sampled
    target_modules: list[str] = field(default_factory=lambda: list(LAYERS))  # linear layers of a decoder layer

    def problems(self) -> list[str]:
        found = [*bounded("model.lora.rank", self.rank, 1), *positive("model.lora.alpha", self.alpha)]
        if self.dropout != 0:
            found.append(
                f"model.lora.dropout is {self.dropout}; expected 0: with dropout the scores of a sequence would be "
                "those of another policy than the one that sampled it"
            )
        if not self.target_modules:
            found.append(f"model.lora.target_modules is empty; expected some of {', '.join(LAYERS)}")
        for name in self.target_modules:
            found += one_of("model.lora.target_modules", name, LAYERS)
        if importlib.util.find_spec("peft") is None:
            found.append(f"model.lora needs the package 'peft': {install_command('peft', 'lora')}")
        return found


@dataclass
class ModelConfig:
    name: str = "base"  # "base" (the built-in one), beta0, beta15, a folder, a run or a hub name: owner/name[@revision]
    revision: str | None = None  # of a hub name: branch, tag or commit; null = the newest, which the run then keeps
    offline: bool = False  # take a hub name of the model from the downloaded ones; HF_HUB_OFFLINE=1 does so for all
    dtype: str = "float32"  # float32 or bfloat16, of teacher and text encoder; what is trained is float32
    gradient_checkpointing: bool = False  # compute activations twice instead of keeping them: less memory, more time
    lora: LoraConfig | None = None  # train adapters alone; the base is then its own teacher; null = train all weights

    def problems(self) -> list[str]:
        found = self._dtype_problems()
        if (self.revision or self.offline) and (self.name in SHIPPED or Path(self.name).expanduser().is_dir()):
            given = "revision" if self.revision else "offline"
            found.append(f"model.{given} is given, and model.name={self.name!r} is no hub name; leave it out")
        elif self.revision and "@" in self.name:
            found.append(
                f"model.revision is {self.revision!r}, and model.name={self.name!r} names one too; leave one out"
            )
        return found + (self.lora.problems() if self.lora else [])

    def _dtype_problems(self) -> list[str]:
        if self.dtype == "float16":
            return [
                "model.dtype is 'float16'; expected float32 or bfloat16: float16 ends at 65,504, which the activations "
                "of a T5 exceed; `qd sample --dtype float16` may try"
            ]
        if self.dtype != "float32" and self.lora:
            return [
                f"model.dtype is {self.dtype!r} with model.lora; expected float32: the base is the student too, and a "
                "small adapter would be rounded away when it is merged (trainer.precision=bf16-mixed computes in it)"
            ]
        return one_of("model.dtype", self.dtype, DTYPES)


@dataclass
class GuidanceConfig:
    scale: float = 3.0  # γ of the teacher, Eq. 1, ≥ 0; 1 = no guidance
    negative_prompt: str | None = "Bad audio quality."  # null = unconditional guidance

    def problems(self) -> list[str]:
        return bounded("guidance.scale", self.scale, 0)


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
