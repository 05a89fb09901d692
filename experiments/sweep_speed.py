"""λ from 0 to 1 in place, as ``qd sweep`` measures it, beside doing it naively: merge a folder, load it, measure it.

Both measure the same prompts; that they find the same is checked. What differs is told by itself: bringing the weights
of a λ to where they are measured.

    .venv/bin/python experiments/sweep_speed.py --a base --b runs/beta15
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch

from qd.config_schema.measuring import MeasuringConfig
from qd.config_schema.series import InterpolateConfig
from qd.devices import resolve_device
from qd.evaluation.bench import Bench
from qd.evaluation.model_spec import ModelSpec
from qd.evaluation.task import Task
from qd.evaluation.weights_in_place import WeightsInPlace
from qd.merging.merge import merge
from qd.models.fingerprint import fingerprint
from qd.models.musicgen import MusicGen
from qd.quiet import quieten_libraries


def in_place(a: str, b: str, lambdas: list[float], device: torch.device) -> list[str]:
    """Fingerprints of the language model at each λ, of one allocated model."""
    weights, found = WeightsInPlace(), []
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


def seconds_of_a_point(a: str, n_prompts: int, device: torch.device) -> float:
    """Of the measurement alone."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(MeasuringConfig(n_prompts=n_prompts, out=f"{folder}/points.jsonl"), device, fad=False)
        (planned,) = bench.plan([Task(ModelSpec.of(a))])
        return bench.measure(planned).seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--a", default="base", help="λ = 0 (default: base)")
    parser.add_argument("--b", required=True, help="λ = 1")
    parser.add_argument("--step", type=float, default=0.05, help="of λ (default: 0.05, 21 points)")
    parser.add_argument("--n-prompts", type=int, default=8, help="of the measured point, of 4 samples (default: 8)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    quieten_libraries()
    device = resolve_device(options.device)
    lambdas = InterpolateConfig(options.a, options.b, step=options.step).lambdas
    found = {}
    for name, way in {"in place": in_place, "naively": naively}.items():
        began = time.perf_counter()
        found[name] = way(options.a, options.b, lambdas, device)
        seconds = time.perf_counter() - began
        print(f"{name}: {len(lambdas)} λ in {seconds:.1f} s, {seconds / len(lambdas):.3f} s each", flush=True)
    print(f"the same weights, bit for bit: {found['in place'] == found['naively']}")
    point = seconds_of_a_point(options.a, options.n_prompts, device)
    print(f"to measure a point of {options.n_prompts} prompts × 4 samples: {point:.1f} s")


if __name__ == "__main__":
    main()
