"""What `qd evaluate` and `qd sweep` can be told of how they measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qd.config.checks import bounded, folder_problems, positive, present_device, unavailable
from qd.config.evaluation import ScoringConfig
from qd.data.manifest import reference_paths
from qd.data.world.world import BUILTIN
from qd.models.embedders.loading import check_embedder, check_fad_embedder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec

POINTS = "runs/results/points.jsonl"


@dataclass
class MeasuringConfig(ScoringConfig):
    protocol: str = "full"  # a name of qd.config.protocols.PROTOCOLS
    embedder: str = "builtin"  # what the reward hears: any name of qd.models.embedders.loading.load_embedder
    eval_embedder: str = "builtin-heldout"  # for measuring only: no reward hears it
    seconds: float = 4.0  # length of a clip, > 0
    temperature: float = 0.99  # T of sampling, > 0
    seeds: list[int] = field(default_factory=lambda: [0])  # of the tokens drawn, ≥ 0; a point for each
    fad: bool = False  # measure the Fréchet audio distance too, on the same audio; so does any of the next three
    fad_reference: str | None = None  # folder or manifest of recordings, or builtin (null): clean held-out pieces
    fad_embedder: str | None = None  # vggish:<weights file>, or any name of load_embedder; null = builtin
    fad_pieces: int = 512  # of the built-in reference, ≥ 10
    device: str = "auto"  # auto, cpu, mps, cuda or cuda:<index>
    out: str = POINTS  # the results file; audio and values for each prompt go into folders beside it

    @property
    def asks_fad(self) -> bool:
        """Whether the Fréchet audio distance is asked for, if only by telling what it is to be of."""
        told = (self.fad_reference, self.fad_embedder, self.fad_pieces)
        return self.fad or told != (None, None, MeasuringConfig.fad_pieces)

    def measuring_problems(self, fad: bool) -> list[str]:
        """One sentence for each bad value; ``fad``: whether any point wants a Fréchet audio distance."""
        return [
            *self.scoring_problems(),
            *unavailable("embedder", check_embedder, self.embedder),
            *unavailable("eval_embedder", check_embedder, self.eval_embedder),
            *positive("seconds", self.seconds),
            *positive("temperature", self.temperature),
            *seed_problems("seeds", self.seeds),
            *(unavailable("fad_reference", reference_paths, self.fad_reference or BUILTIN) if fad else []),
            *(unavailable("fad_embedder", check_fad_embedder, self.fad_embedder or BUILTIN) if fad else []),
            *bounded("fad_pieces", self.fad_pieces, 10),
            *present_device("device", self.device),
            *self._out_problems(),
        ]

    def _out_problems(self) -> list[str]:
        if not self.out.endswith(".jsonl") or Path(self.out).is_dir():
            return [f"out is {self.out!r}; expected the name of a .jsonl file, which is no folder"]
        return folder_problems("out", Path(self.out).parent)


@dataclass
class EvaluateConfig(MeasuringConfig):
    """``qd evaluate``."""

    models: list[str] = field(default_factory=list)  # names, or sums: "runs/beta0:0.5 runs/beta15:0.5"
    guidance_scale: float = 1.0  # γ of Eq. 1, ≥ 0; 1 = no guidance
    negative_prompt: str | None = "Bad audio quality."  # of the guidance; null = unconditional
    extrapolate: bool = False  # allow weights of a sum outside [0, 1]

    def problems(self) -> list[str]:
        found, weights = self.measuring_problems(self.asks_fad), WeightSwapper()
        found += [text for model in self.models for text in self._model_problems(model, weights)]
        found += bounded("guidance_scale", self.guidance_scale, 0)
        return found + ([] if self.models else ["no model is named; expected MODEL=<name> or MODEL='<a>:0.5 <b>:0.5'"])

    def _model_problems(self, text: str, weights: WeightSwapper) -> list[str]:
        try:
            spec = ModelSpec.parse(text)
            found = spec.problems(self.extrapolate) or weights.problems(spec)
        except ValueError as error:
            found = [str(error)]
        return [f"models: {text!r}: {problem}" for problem in found]


def seed_problems(path: str, seeds: list[int]) -> list[str]:
    """At least one seed, and each once."""
    if not seeds or len(set(seeds)) < len(seeds):
        return [f"{path} is {seeds}; expected one seed or more, each once"]
    return [text for seed in seeds for text in bounded(path, seed, 0)]
