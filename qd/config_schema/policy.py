"""The policy: which model, under which guidance it is the teacher, and how it is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from qd.config_checks import bounded, positive


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
