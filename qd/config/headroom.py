"""Settings of `qd headroom`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qd.config.checks import folder_problems, unavailable
from qd.config.measuring import SampledConfig
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.models.merging.in_memory import WeightSwapper
from qd.schema.setting import setting

MOST_SAMPLES = 2**20
"""Largest number of samples of a prompt."""


@dataclass
class HeadroomConfig(SampledConfig):
    """``qd headroom``."""

    model: str = setting("base", "Base model, whose guided self is the teacher.", path=True)
    models: list[str] = setting([], "Trained models to compare, sampled without guidance.", path=True)
    beta: list[float] = setting([0.0, 5.0, 10.0, 15.0, 30.0], "Weights β of the diversity reward.", ge=0, nonempty=True)
    guidance_scale: float = setting(3.0, "Guidance scale γ of the teacher.", ge=0)
    front: list[float] = setting(
        [1.0, 1.5, 2.0, 3.0], "Guidance scales of the base model that form guidance's front.", ge=0
    )
    negative_prompt: str | None = setting(NEGATIVE_PROMPT, "Negative prompt; null: unconditional guidance.")
    samples: int = setting(640, "Even number of the teacher's samples of each prompt.", ge=4, le=MOST_SAMPLES)
    front_samples: int = setting(
        128, "Even number of samples of each prompt, for the other policies.", ge=4, le=MOST_SAMPLES
    )
    seed: int = setting(0, "Seed for token sampling.", ge=0)
    cache: str = setting(
        "runs/headroom/samples", "Folder of the scored samples, which later commands reuse.", path=True
    )
    out: str | None = setting(
        None, "Folder of the table, figure and values; null: runs/headroom/<model>-<time>.", path=True
    )

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        for name in ("samples", "front_samples"):
            if getattr(self, name) % 2:
                yield f"{prefix}{name} is {getattr(self, name)}; expected an even number, to make two halves"
        weights = WeightSwapper()
        for path, name in [("model", self.model), *(("models", name) for name in self.models)]:
            yield from unavailable(f"{prefix}{path}", weights.source, name)
        for path in ("cache", "out"):
            if folder := getattr(self, path):
                yield from folder_problems(f"{prefix}{path}", folder)
