"""The policy: the model, the guidance of its teacher, and its sampling."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from qd.data.world.captions import NEGATIVE_PROMPT
from qd.models.checkpoints.resolver import SHIPPED
from qd.models.lora import LAYERS
from qd.runs.extras import install_command
from qd.schema.checker import Settings
from qd.schema.paths import home_path
from qd.schema.setting import setting

DTYPES = ("float32", "bfloat16")
TEMPERATURE = 0.99
"""Default sampling temperature: the paper's."""


@dataclass
class LoraConfig(Settings):
    """Low-rank adapters; needs the package peft."""

    rank: int = setting(16, "Rank of the adapters' matrices.", ge=1)
    alpha: float = setting(32.0, "Numerator of the adapters' scale, alpha / rank.", gt=0)
    dropout: float = setting(
        0.0,
        "Dropout of the adapters; only 0 is allowed.",
        ge=0,
        le=0,
        reason="dropout would score a sequence with another policy than the one that sampled it",
    )
    target_modules: list[str] = setting(
        list(LAYERS), "Linear layers of a decoder layer that get adapters.", choices=LAYERS, nonempty=True
    )

    def rules(self, prefix: str) -> Iterator[str]:
        if importlib.util.find_spec("peft") is None:
            yield f"{prefix.rstrip('.')} needs the package 'peft': {install_command('peft', 'lora')}"


@dataclass
class ModelConfig(Settings):
    """The student and its teacher."""

    name: str = setting(
        "base",
        "Model: base (the built-in one), beta0, beta15, a folder, a run, or a hub name owner/name[@revision].",
        path=True,
    )
    revision: str | None = setting(
        None, "Branch, tag or commit of a hub name; null: the newest, which the run then keeps."
    )
    offline: bool = setting(
        False, "Whether a hub name is read from the local cache only; HF_HUB_OFFLINE=1 does this for all models."
    )
    dtype: str = setting(
        "float32",
        "Number format of the teacher and the text encoder; trained weights are float32.",
        choices=DTYPES,
        reason="activations of a T5 exceed float16's largest number, 65,504; `qd sample --dtype float16` may work",
    )
    gradient_checkpointing: bool = setting(
        False, "Whether activations are computed twice instead of stored: less memory, more time."
    )
    lora: LoraConfig | None = setting(
        None, "Train low-rank adapters only, with the base model as teacher; null: train all weights."
    )

    def rules(self, prefix: str) -> Iterator[str]:
        if self.dtype == "bfloat16" and self.lora:
            yield (
                f"{prefix}dtype is {self.dtype!r} with {prefix}lora; expected float32: the base is the student too, "
                "and merging would round a small adapter away (trainer.precision=bf16-mixed computes in bfloat16)"
            )
        if (self.revision or self.offline) and (self.name in SHIPPED or home_path(self.name).is_dir()):
            key = "revision" if self.revision else "offline"
            yield f"{prefix}{key} is set, but {prefix}name={self.name!r} is not a hub name; remove it"
        elif self.revision and "@" in self.name:
            yield f"{prefix}revision is {self.revision!r}, but {prefix}name={self.name!r} names one too; remove one"


@dataclass
class GuidanceConfig(Settings):
    """Classifier-free guidance of the teacher (Eq. 1)."""

    scale: float = setting(3.0, "Guidance scale γ of the teacher; 1: no guidance.", ge=0)
    negative_prompt: str | None = setting(NEGATIVE_PROMPT, "Negative prompt; null: unconditional guidance.")


@dataclass
class RolloutConfig(Settings):
    """Sampling of the student during training."""

    seconds: float = setting(4.0, "Length of a sampled clip.", unit="s", gt=0)
    temperature: float = setting(
        TEMPERATURE, "Temperature T of sampling, of the KL and of the log-probabilities.", gt=0
    )
    samples_per_prompt: int = setting(8, "Number of samples N of each prompt.", ge=2)
