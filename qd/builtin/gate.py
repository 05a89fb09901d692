"""The test of a base model before it ships: guidance must raise its quality and lower its diversity.

The gate compares guidance γ = 3 with the negative prompt and γ = 1, on the 101 held-out prompts with 8 samples each.
The 95 % bootstrap interval over prompts of the paired difference in quality must be above 0, and diversity must fall by
10 % or more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import track

from qd.config.protocols import PROTOCOLS, Protocol
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.evaluation.columns import METRICS
from qd.evaluation.evaluator import Evaluator, acting_fingerprint
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.measurement import Measurement
from qd.metrics.bootstrap import Interval, paired_difference
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.schema.checker import Settings
from qd.schema.setting import setting
from qd.scorers.loading import load_quality

HEADING = "## The gate"
COMPARED = ("quality", "adherence", "preference", "diversity", "diversity_heldout")
MIN_DIVERSITY_LOSS = 0.10  # relative


@dataclass
class GateConfig(Settings):
    """The guidance sweep of the gate; each scale is measured with and without the negative prompt."""

    seed: int = setting(0, "Seed for token sampling; `seed` of the build is added.", ge=0)
    protocol: str = setting("paper", "Protocol: prompts and samples.", choices=PROTOCOLS)
    scales: tuple[float, ...] = setting((1.5, 2.0, 3.0, 5.0, 7.0), "Guidance scales γ of the sweep.", ge=0)
    gate_scale: float = setting(3.0, "Guidance scale γ that decides, one of scales.")

    def rules(self, prefix: str) -> Iterator[str]:
        if self.gate_scale not in self.scales:
            scales = ", ".join(f"{scale:g}" for scale in self.scales) or "none"
            yield f"{prefix}gate_scale is {self.gate_scale:g}; expected one of {prefix}scales, which are {scales}"


@dataclass(frozen=True)
class GateResult:
    """Paired differences guided − unguided over the prompts, and whether the model passes."""

    quality: Interval
    adherence: Interval
    preference: Interval
    diversity: Interval
    diversity_heldout: Interval
    relative_diversity: float
    passed: bool


def compare(base: Measurement, guided: Measurement) -> GateResult:
    """Compares a guided measurement with an unguided one on the same prompts."""
    differences = {name: paired_difference(guided.per_prompt[name], base.per_prompt[name]) for name in COMPARED}
    relative = differences["diversity"].mean / base.per_prompt["diversity"].mean()
    passed = differences["quality"].lo > 0 and relative <= -MIN_DIVERSITY_LOSS
    return GateResult(**differences, relative_diversity=float(relative), passed=bool(passed))


def sweep(evaluator: Evaluator, config: GateConfig, folder: Path) -> dict[tuple[float, str | None], Measurement]:
    """Measures γ = 1 and each scale with both kinds of guidance; reuses the measurements in ``folder``."""
    settings = [(1.0, None)] + [(scale, negative) for negative in (NEGATIVE_PROMPT, None) for scale in config.scales]
    lm, measured = evaluator.music.lm, {}
    weights = acting_fingerprint(lm)
    for scale, negative in track(settings, description="guidance sweep"):
        sampling = evaluator.sampling(scale, negative)
        measured[scale, negative] = evaluator.recall(folder, evaluator.key_of(weights, sampling), lm, sampling)
    return measured


def run(config: GateConfig, model: Path, folder: Path, protocol: Protocol | None = None) -> GateResult:
    """Measures the checkpoint ``model``, writes ``gate.json`` and ``gate.md`` to ``folder``, and returns the result.

    Args:
        config: Config of the gate.
        model: Folder of the candidate; the shipped embedders and scorers measure it.
        folder: Output folder; also stores the measurements, so that a killed gate resumes.
        protocol: Protocol to use instead of the config's, such as development prompts for tuning.
    """
    music = MusicGen.load(str(model))
    evaluation_models = EvaluationModels(load_quality(), load_embedder("builtin"), load_embedder("builtin-heldout"))
    evaluator = Evaluator(music, evaluation_models, protocol or PROTOCOLS[config.protocol], seed=config.seed)
    measured = sweep(evaluator, config, folder / "measurements")
    result = compare(measured[1.0, None], measured[config.gate_scale, NEGATIVE_PROMPT])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.md").write_text(_report(evaluator, config, measured, result), encoding="utf-8")
    (folder / "gate.json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return result


def _report(
    evaluator: Evaluator, config: GateConfig, measured: dict[tuple[float, str | None], Measurement], result: GateResult
) -> str:
    protocol = evaluator.protocol
    lines = [
        HEADING,
        "",
        f"{'Passed' if result.passed else 'Not passed'}: γ = {config.gate_scale:g} with “{NEGATIVE_PROMPT}” against "
        f"γ = 1, on {protocol.n_prompts} {protocol.split} prompts × {protocol.n_samples} samples, seed {config.seed}. "
        f"Diversity changes by {result.relative_diversity:+.1%}. Paired differences, 95 % bootstrap intervals over "
        "prompts:",
        "",
        "| metric | difference | interval |",
        "|---|---|---|",
    ]
    for name in COMPARED:
        mean, lo, hi = getattr(result, name)
        lines.append(f"| {name} | {mean:+.3f} | [{lo:+.3f}, {hi:+.3f}] |")
    lines += ["", f"| γ | guided against | {' | '.join(METRICS)} |", f"|---|---|{'---|' * len(METRICS)}"]
    for (scale, negative), measurement in measured.items():
        against = "" if scale == 1 else "negative prompt" if negative else "unconditional"
        values = [f"{mean:.3f} ± {(hi - lo) / 2:.3f}" for mean, lo, hi in measurement.intervals().values()]
        lines.append(f"| {scale:g} | {against} | {' | '.join(values)} |")
    bound = measured[1.0, None].cross_prompt_bound
    lines += ["", f"Diversity of two samples of different prompts (the bound of Figure 2): {bound:.3f}.", ""]
    return "\n".join(lines)
