"""Runs of one base model, told in tables and one figure: what `docs/first-runs.md` shows.

    make train BETA=0 NAME=first-beta0
    make train BETA=15 NAME=first-beta15
    python experiments/first_runs.py runs/first-beta0 runs/first-beta15 [--protocol paper] [--figure pareto.png]

Prints Markdown: how training went, in spans of steps; the points that each run measured on the development prompts; and
the final weights of each, beside their base model without guidance and with it, on the held-out prompts, with paired
differences. The last run's config tells how all are measured, and it is drawn in front of the others. What is measured
is kept under the runs folder, so that a second call only prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from qd.callbacks.pareto_log import REFERENCES
from qd.config.loading import load_config
from qd.config.protocols import PROTOCOLS
from qd.config.train import TrainConfig
from qd.evaluation.evaluator import Evaluator, build_evaluator, load_scorers
from qd.evaluation.figures import Landmarks, pareto_figure
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import FILE, METRICS, Point, PointsFile
from qd.metrics.bootstrap import Interval, paired_difference
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.runs.folders import CONFIG
from qd.runs.quiet import quieten_libraries
from qd.runs.scalars import read_scalars

SPAN = 200  # steps
CURVES = ("kl_per_token", "reward", "entropy", "policy_gradient_to_kl")
COMPARED = ("quality", "adherence", "preference", "diversity", "diversity_heldout", "vendi")


def training_table(runs: Iterable[Path]) -> list[str]:
    """Means over spans of steps of what training logged, with the standard error over the logged steps."""
    lines = _header(["run", "steps", *CURVES])
    for run in runs:
        logged = read_scalars(run)
        series = {name: [(step, one.value) for step, one in logged[f"train/{name}"].items()] for name in CURVES}
        last = max(step for values in series.values() for step, _ in values)
        for start in range(0, last, SPAN):
            found = {n: [v for step, v in values if start < step <= start + SPAN] for n, values in series.items()}
            cells = [f"{np.mean(v):.3f} ± {np.std(v) / len(v) ** 0.5:.3f}" for v in found.values()]
            lines.append(_row([run.name, f"{start + 1}–{start + SPAN}", *cells]))
    return lines


def points_table(points: Iterable[Point]) -> list[str]:
    """Every measured point with its intervals."""
    lines = _header(["run", "step", *METRICS])
    lines += [_row([p.run, str(p.step), *(_interval(p.metrics[name]) for name in METRICS)]) for p in points]
    return lines


def differences_table(measured: dict[str, Measurement], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Paired differences over the prompts, 95 % bootstrap intervals."""
    lines = _header(["difference", *COMPARED])
    for one, other in pairs:
        a, b = measured[one].per_prompt, measured[other].per_prompt
        cells = [_interval(paired_difference(a[name], b[name]), signed=True) for name in COMPARED]
        lines.append(_row([f"{one} − {other}", *cells]))
    return lines


def measure_heldout(evaluator: Evaluator, runs: Sequence[Path], guidance: tuple[float, str | None]) -> dict:
    """Base, guided base and the final weights of each run, by the evaluator's protocol."""
    folder = runs[0].parent / REFERENCES
    policies = {
        "base": (evaluator.music.lm, evaluator.sampling()),
        "CFG": (evaluator.music.lm, evaluator.sampling(*guidance)),
        **{run.name: (MusicGen.load(str(run)).lm, evaluator.sampling()) for run in runs},
    }
    return {
        name: evaluator.recall(folder, evaluator.key(lm, sampling), lm, sampling)
        for name, (lm, sampling) in track(policies.items(), evaluator.protocol.id, console=Console(stderr=True))
    }


def draw(runs: Sequence[Path], evaluator: Evaluator, guidance: tuple[float, str | None], path: Path) -> None:
    """The Pareto figure of the development points, the last run in front."""
    folder, lm, points = runs[0].parent / REFERENCES, evaluator.music.lm, {}
    plain = evaluator.sampling()
    for sampling in (plain, evaluator.sampling(*guidance)):
        key = evaluator.key(lm, sampling)
        measured = evaluator.recall(folder, key, lm, sampling)
        points[sampling.guidance_scale] = evaluator.point(measured, key, sampling, run="base", model="base")
    bound = evaluator.recall(folder, evaluator.key(lm, plain), lm, plain).cross_prompt_bound
    *siblings, front = [(run.name, PointsFile(run / FILE).read()) for run in runs]
    landmarks = Landmarks(points[1.0], points[guidance[0]], bound)
    pareto_figure(front[1], dict(siblings), landmarks).savefig(path, dpi=150)


def _header(columns: Sequence[str]) -> list[str]:
    return [_row(columns), "|---" * len(columns) + "|"]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(interval: Interval, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{interval.mean:{form}} [{interval.lo:{form}}, {interval.hi:{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="folder of a run; that of β = 0 first")
    parser.add_argument("--protocol", default="paper", choices=PROTOCOLS, help="of the final weights (default paper)")
    parser.add_argument("--figure", type=Path, default=Path("pareto.png"), help="to write (default pareto.png)")
    options = parser.parse_args()
    quieten_libraries()
    runs: list[Path] = options.runs

    config = load_config(TrainConfig, "train", str(runs[-1] / CONFIG))
    guidance = (config.guidance.scale, config.guidance.negative_prompt)
    listeners = load_embedder(config.reward.embedder), load_embedder(config.reward.eval_embedder)
    music = MusicGen.load(config.model.name)
    development = build_evaluator(
        config.evaluation,
        music,
        EvaluationModels(load_scorers(config.evaluation, music.device), *listeners),
        seconds=config.rollout.seconds,
        temperature=config.rollout.temperature,
        seed=config.seed,
    )
    heldout = Evaluator(
        development.music,
        development.evaluation_models,
        PROTOCOLS[options.protocol],
        config.rollout.temperature,
        config.seed,
    )
    draw(runs, development, guidance, options.figure)
    measured = measure_heldout(heldout, runs, guidance)
    names = [run.name for run in runs]
    pairs = [("CFG", "base"), *((name, other) for name in names for other in ("base", "CFG"))]
    pairs += [(name, names[0]) for name in names[1:]]
    points = [point for run in runs for point in PointsFile(run / FILE).read()]

    print("\n".join(["### Training", "", *training_table(runs)]))
    print("\n".join(["", f"### Points: protocol {development.protocol.id}", "", *points_table(points)]))
    print(f"\n### Final weights: protocol {heldout.protocol.id}, {len(heldout.prompts)} held-out prompts\n")
    print("\n".join(_header(["model", *METRICS])))
    for name, measurement in measured.items():
        print(_row([name, *map(_interval, measurement.intervals().values())]))
    print("\n".join(["", *differences_table(measured, pairs)]))
    print(f"\nDiversity of two samples of different prompts: {measured['base'].cross_prompt_bound:.3f}")


if __name__ == "__main__":
    main()
