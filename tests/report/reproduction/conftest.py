"""Results with known truth: scores of each model, with noise of prompts and of sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from qd.config.loading import load_config
from qd.evaluation.columns import METRICS
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point, PointsFile
from qd.metrics.bootstrap import bootstrap_interval
from qd.report.reproduction import statistics
from qd.report.reproduction.plan import PlannedRun, ReproductionConfig, RunConfig, planned_runs

PROMPTS = 60
OMEGA = 5.0

Scores = Mapping[str, float]
"""The values of :data:`SCORES` of a model, by name."""

SCORES = ("adherence", "preference", "diversity", "diversity_heldout", "vendi", "entropy", "fad")

PAPER: dict[str, Scores] = {
    name: dict(zip(SCORES, row, strict=True))
    for name, row in {
        "base": (-0.11, 0.25, 0.60, 0.59, 2.5, 4.5, 3.7),
        "CFG": (0.05, 0.99, 0.20, 0.20, 1.4, 4.2, 4.4),
        "beta0": (0.05, 0.99, 0.20, 0.20, 1.4, 4.2, 4.4),
        "beta5": (0.045, 0.985, 0.30, 0.29, 1.7, 4.2, 5.0),
        "beta10": (0.035, 0.98, 0.45, 0.43, 2.1, 4.2, 5.6),
        "beta15": (0.02, 0.97, 0.62, 0.58, 2.6, 4.2, 6.4),
        "n2": (0.02, 0.97, 0.62, 0.58, 2.6, 4.2, 6.4),
        "n4": (0.02, 0.97, 0.62, 0.58, 2.6, 4.2, 6.4),
        "n4-shared": (0.03, 0.98, 0.45, 0.44, 2.1, 4.2, 6.0),
        "n8-shared": (0.04, 0.98, 0.33, 0.32, 1.8, 4.2, 5.0),
    }.items()
}  # fmt: skip


class World:
    """Writes points and their values for each prompt."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "results" / "points.jsonl"
        self.runs = folder
        self.hard = np.random.default_rng(0).normal(
            0, 0.1, PROMPTS
        )  # effect of a difficult prompt, the same for all models

    def add(self, model: str, scores: Scores, noise: float = 0.01, **fields) -> None:
        key = f"{len(PointsFile(self.file).read()):016x}"
        draw = np.random.default_rng(int(key, 16) + 1)
        own = {name: draw.normal(0, noise, PROMPTS) for name in METRICS if name != "quality"}
        values = {name: scores[name] + self.hard + own[name] for name in own}
        values["adherence"] = scores["adherence"] + 10 * self.hard + own["adherence"] / OMEGA
        values["quality"] = OMEGA * values["adherence"] + values["preference"]
        Measurement(
            tuple(map(str, range(PROMPTS))), values, 0.9, np.zeros((0, 4)), 16_000, 1.0,
            sampling_seconds=fields.get("seconds", 1.0),
        ).save(self.file.parent / "per_prompt" / f"{key}.npz")  # fmt: skip
        row = {
            "key": key, "run": "", "model": model, "step": 0, "beta": None, "guidance_scale": 1.0, "negative": None,
            "temperature": 0.99, "lam": None, "seed": 0, "protocol": "paper", "scorers": "5*a@1 b@2",
            "n_prompts": PROMPTS, "n_samples": 8, "seconds": 1.0, "fad": scores["fad"], "fad_infinite": scores["fad"],
            "fad_reference": "r",
        }  # fmt: skip
        metrics = {name: bootstrap_interval(values[name]) for name in METRICS}
        PointsFile(self.file).append(Point(**row | fields, metrics=metrics))

    def fill(self, truth: Mapping[str, Scores], noise: float = 0.01, bend: float = 0.3) -> None:
        """Adds all points that the claims need; lines bend upwards by ``bend`` in quality."""
        for seed in (0, 1):
            for name, scores in truth.items():
                guided = {"guidance_scale": 3.0, "negative": "Bad."} if name == "CFG" else {}
                model = "base" if name in ("base", "CFG") else f"runs/x/{name}"
                self.add(model, scores, noise, seed=seed, seconds=2.0 if guided else 1.0, **guided)
        for a, b in (("beta0", "beta15"), ("beta0", "base")):
            for lam in (0.25, 0.5, 0.75):
                mixed = mixture({a: 1 - lam, b: lam}, truth, bend * 4 * lam * (1 - lam))
                second = b if b == "base" else f"runs/x/{b}"
                self.add(f"runs/x/{a}:{1 - lam} {second}:{lam}", mixed, noise, lam=lam)
        betas = ("beta0", "beta5", "beta10", "beta15")
        soup = mixture(dict.fromkeys(betas, 0.25), truth, 1.2 * bend)
        self.add(" ".join(f"runs/x/{name}:0.25" for name in betas), soup, noise)
        self._fill_sampling(truth, noise)

    def _fill_sampling(self, truth: Mapping[str, Scores], noise: float) -> None:
        """Adds the sweeps of guidance and temperature, which trade quality for diversity below the line."""
        for model, scores in (("base", truth["base"]), ("runs/x/beta0", truth["beta0"])):
            for scale in (2.0, 3.0, 5.0, 7.0):
                guided = scores | {"diversity": scores["diversity"] - 0.02 * scale, "preference": 0.5 + 0.02 * scale}
                if (model, scale) != ("base", 3.0):
                    self.add(model, guided, noise, guidance_scale=scale, negative="Bad.")
            for temperature in (0.8, 1.1):
                moved = scores | {"diversity": scores["diversity"] + temperature - 1, "preference": 0.2}
                self.add(model, moved, noise, temperature=temperature)
        for scale in (3.0, 7.0):
            plain = truth["CFG"] | {"preference": 0.6, "adherence": 0.07, "diversity": 0.25 - 0.02 * scale}
            self.add("base", plain, noise, guidance_scale=scale)


def mixture(weights: Mapping[str, float], truth: Mapping[str, Scores], extra: float) -> Scores:
    """The weighted mean, plus ``extra`` in preference."""
    mean = {name: sum(w * truth[role][name] for role, w in weights.items()) for name in truth["base"]}
    return mean | {"preference": mean["preference"] + extra}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    return World(tmp_path)


@pytest.fixture
def log_kl(tmp_path: Path) -> Callable[[str, float], None]:
    """Writes the events of a run whose KL ends at the given value."""
    from torch.utils.tensorboard import SummaryWriter

    def write(role: str, end: float) -> None:
        draw = np.random.default_rng(1)
        with SummaryWriter(str(tmp_path / role)) as writer:
            for step in range(0, 400, 10):
                kl = end + 0.1 * np.exp(-step / 50) + draw.normal(0, 0.002)
                writer.add_scalar("train/kl_per_token", kl, step)

    return write


def load_plan(name: str, *overrides: str) -> ReproductionConfig:
    return load_config(ReproductionConfig, "reproduction", name, overrides)


@pytest.fixture
def one(tmp_path) -> PlannedRun:
    plan = ReproductionConfig(folder=str(tmp_path), overrides=["trainer.max_steps=20"], runs=[RunConfig("a", 15.0)])
    return planned_runs(plan)[0]
