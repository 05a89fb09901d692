"""What ``qd sweep`` spares, beside doing it naively; that both find the same is checked.

- λ from 0 to 1: weights summed where the one allocated model has them; naively a folder is merged, loaded and removed.
- The reference rollouts that several series and commands share, of model A without guidance and with it: found again by
  what made them; naively they are sampled and heard anew.
- The reference recordings of the Fréchet audio distance: the same.

    .venv/bin/python experiments/sweep_speed.py --a base --b runs/beta15
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from qd.commands.merge import merge
from qd.config.measuring import MeasuringConfig
from qd.config.series import InterpolateConfig
from qd.data.world.world import BUILTIN
from qd.evaluation.fad_reference import load_reference
from qd.evaluation.task_runner import Bench
from qd.evaluation.tasks import Task
from qd.metrics.bootstrap import Interval
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.musicgen import MusicGen
from qd.runs.devices import resolve_device
from qd.runs.quiet import quieten_libraries

GUIDANCE = 3.0
"""γ of the guided reference."""


def in_place(a: str, b: str, lambdas: list[float], device: torch.device) -> list[str]:
    """Fingerprints of the language model at each λ, of one allocated model."""
    weights, found = WeightSwapper(), []
    for lam in lambdas:
        weights.take(ModelSpec.between(a, b, lam), device)
        found.append(weights.fingerprint)
    return found


def naively(a: str, b: str, lambdas: list[float], device: torch.device) -> list[str]:
    """The same of a folder for each λ, merged, loaded and removed."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for lam in lambdas:
            merged = merge(a, b, lam=lam, out=Path(folder) / "merged")
            found.append(fingerprint(MusicGen.load(merged).to(device).lm))
            shutil.rmtree(merged)
    return found


def rollouts(a: str, out: Path, n_prompts: int, device: torch.device) -> tuple[float, list[Mapping[str, Interval]]]:
    """Seconds and metrics of model A's two points for one series more: found again, if they lie beside ``out``."""
    bench = Bench(MeasuringConfig(n_prompts=n_prompts, out=str(out)), device, fad=False)
    asked = {"negative": "Bad audio quality.", "series": f"series {len(bench.results.points.read())}"}
    planned = bench.plan([Task(ModelSpec.of(a), guidance_scale=scale, **asked) for scale in (1.0, GUIDANCE)])
    began = time.perf_counter()
    points = [bench.measure(one) for one in planned]
    return time.perf_counter() - began, [point.metrics for point in points]


def recordings(pieces: int, cache: Path, device: torch.device) -> tuple[float, Tensor]:
    """Seconds and embeddings of the built-in reference: found again, if it was heard into ``cache`` before."""
    began = time.perf_counter()
    found = load_reference(BUILTIN, BUILTIN, pieces, device, cache)
    return time.perf_counter() - began, found.embeddings


def tell_weights(a: str, b: str, lambdas: list[float], device: torch.device) -> None:
    """What the weights of all λ take, each way."""
    found = {}
    for name, way in {"in place": in_place, "naively": naively}.items():
        began = time.perf_counter()
        found[name] = way(a, b, lambdas, device)
        seconds = time.perf_counter() - began
        print(f"{name}: {len(lambdas)} λ in {seconds:.1f} s, {seconds / len(lambdas):.3f} s each", flush=True)
    print(f"the same weights, bit for bit: {found['in place'] == found['naively']}", flush=True)


def tell_references(a: str, n_prompts: int, pieces: int, folder: Path, device: torch.device) -> None:
    """What a results file keeps, found again and anew; before that, untimed, it is filled and all is warm."""
    kept, empty = folder / "kept", folder / "empty"
    rollouts(a, kept / "points.jsonl", n_prompts, device)
    cached, found = rollouts(a, kept / "points.jsonl", n_prompts, device)
    anew, measured = rollouts(a, empty / "points.jsonl", n_prompts, device)
    print(f"reference rollouts, 2 points of {n_prompts} prompts × 4 samples: found again in {cached:.3f} s, ", end="")
    print(f"anew in {anew:.3f} s\nthe same values: {found == measured}", flush=True)
    recordings(pieces, kept, device)
    cached, found = recordings(pieces, kept, device)
    anew, heard = recordings(pieces, empty, device)
    print(f"reference recordings, {pieces} pieces: found again in {cached:.3f} s, anew in {anew:.3f} s")
    print(f"the same embeddings: {torch.equal(found, heard)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--a", default="base", help="λ = 0 (default: base)")
    parser.add_argument("--b", required=True, help="λ = 1")
    parser.add_argument("--step", type=float, default=0.05, help="of λ (default: 0.05, 21 points)")
    parser.add_argument("--n-prompts", type=int, default=8, help="of the reference rollouts, of 4 samples (default: 8)")
    parser.add_argument("--pieces", type=int, default=64, help="of the reference recordings, ≥ 10 (default: 64)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    quieten_libraries()
    device = resolve_device(options.device)
    tell_weights(options.a, options.b, InterpolateConfig(options.a, options.b, step=options.step).lambdas, device)
    with tempfile.TemporaryDirectory() as folder:
        tell_references(options.a, options.n_prompts, options.pieces, Path(folder), device)


if __name__ == "__main__":
    main()
