"""Settings of `qd evaluate`, and those that it shares with `qd sweep`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qd.config.checks import folder_problems, present_device, unavailable
from qd.config.evaluation import EMBEDDERS, PointConfig, ScoringConfig
from qd.config.policy import TEMPERATURE
from qd.config.trainer import DEVICE_HELP
from qd.data.manifest import reference_paths
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.data.world.world import BUILTIN
from qd.models.embedders.loading import check_embedder, check_fad_embedder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.schema.setting import setting

POINTS = "runs/results/points.jsonl"
"""Default results file."""


@dataclass
class SampledConfig(ScoringConfig):
    """Settings that `qd evaluate`, `qd sweep` and `qd headroom` share: sampling, embedders and device."""

    embedder: str = setting(BUILTIN, f"Embedder of the diversity: {EMBEDDERS}.")
    eval_embedder: str = setting("builtin-heldout", "Second embedder of the diversity; no reward uses it.")
    seconds: float = setting(4.0, "Length of a clip.", unit="s", gt=0)
    temperature: float = setting(TEMPERATURE, "Sampling temperature T.", gt=0)
    device: str = setting("auto", DEVICE_HELP)

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        yield from unavailable(f"{prefix}embedder", check_embedder, self.embedder)
        yield from unavailable(f"{prefix}eval_embedder", check_embedder, self.eval_embedder)
        yield from present_device(f"{prefix}device", self.device)


@dataclass
class MeasuringConfig(SampledConfig, PointConfig):
    """Settings that `qd evaluate` and `qd sweep` share."""

    protocol: str = "full"
    facets: bool = True
    seeds: list[int] = setting([0], "Seeds for token sampling; one point for each.", ge=0, nonempty=True)
    fad: bool = setting(
        False,
        "Whether to measure the Fréchet and the kernel audio distance (FAD, KAD) too, on the same audio; the other FAD "
        "settings imply it.",
    )
    fad_reference: str | None = setting(
        None,
        "Reference recordings of the FAD: a folder, a manifest, or builtin (clean held-out pieces); null: builtin.",
    )
    fad_embedder: str | None = setting(
        None, "Embedder of the FAD: vggish:<weights file> or any embedder of the diversity; null: builtin."
    )
    fad_pieces: int = setting(512, "Number of pieces of the built-in FAD reference.", ge=10)
    out: str = setting(POINTS, "Results file (.jsonl); audio and values of each prompt go into folders next to it.")

    @property
    def requests_fad(self) -> bool:
        """Whether the Fréchet audio distance is requested, explicitly or by one of its settings."""
        values = (self.fad_reference, self.fad_embedder, self.fad_pieces)
        return self.fad or values != (None, None, MeasuringConfig.fad_pieces)

    @property
    def any_fad(self) -> bool:
        """Whether any point needs the Fréchet audio distance."""
        return self.requests_fad

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        yield from repeated_seeds(f"{prefix}seeds", self.seeds)
        if self.any_fad:
            yield from unavailable(f"{prefix}fad_reference", reference_paths, self.fad_reference or BUILTIN)
            yield from unavailable(f"{prefix}fad_embedder", check_fad_embedder, self.fad_embedder or BUILTIN)
        if not self.out.endswith(".jsonl") or Path(self.out).is_dir():
            yield f"{prefix}out is {self.out!r}; expected a .jsonl file, not a folder"
        else:
            yield from folder_problems(f"{prefix}out", Path(self.out).parent)


@dataclass
class EvaluateConfig(MeasuringConfig):
    """``qd evaluate``."""

    models: list[str] = setting(
        [],
        "Models: base, beta0, beta15, a run, a folder or a hub name; or weighted sums, "
        "'runs/beta0:0.5 runs/beta15:0.5'.",
    )
    guidance_scale: float = setting(1.0, "Guidance scale γ of Eq. 1; 1: no guidance.", ge=0)
    negative_prompt: str | None = setting(NEGATIVE_PROMPT, "Negative prompt; null: unconditional guidance.")
    extrapolate: bool = setting(False, "Whether weights of a sum may be outside [0, 1].")

    def rules(self, prefix: str) -> Iterator[str]:
        yield from super().rules(prefix)
        weights = WeightSwapper()
        for model in self.models:
            yield from self._model_problems(model, weights)
        if not self.models:
            yield "no model is named; expected MODEL=<name> or MODEL='<a>:0.5 <b>:0.5'"

    def _model_problems(self, text: str, weights: WeightSwapper) -> list[str]:
        try:
            spec = ModelSpec.parse(text)
            problems = spec.problems(self.extrapolate) or weights.problems(spec)
        except ValueError as error:
            problems = [str(error)]
        return [f"models: {text!r}: {problem}" for problem in problems]


def repeated_seeds(path: str, seeds: list[int]) -> list[str]:
    """One sentence if a seed occurs twice."""
    return [f"{path} is {seeds}; expected each seed once"] if len(set(seeds)) < len(seeds) else []
