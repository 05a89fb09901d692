from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from qd.evaluation.measurement import Fad, Measurement
from qd.evaluation.points import Point
from qd.evaluation.results import Results

PROMPTS = tuple(f"prompt {i}" for i in range(12))
SCORERS = "adherence@1 preference@1"


def tone(hertz: float) -> np.ndarray:
    """A sine tone of 0.05 s, ``(800,)``."""
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(800) / 16_000, dtype=np.float32)


class Synthetic:
    """A results file with known values: a mean for each metric, and offsets for the prompts that sum to 0."""

    def __init__(self, folder: Path) -> None:
        self.results = Results(folder / "points.jsonl")
        self.offsets = np.linspace(-0.1, 0.1, len(PROMPTS))

    def add(
        self,
        series: str,
        model: str,
        quality: float,
        diversity: float,
        *,
        fad: float | None = None,
        reference: str = "pieces",
        audio: bool = False,
        key: str | None = None,
        optional: Mapping[str, float] = MappingProxyType({}),
        **facts,
    ) -> Point:
        values = {"quality": quality, "adherence": quality / 10, "preference": quality / 2, "diversity": diversity}
        values |= {"diversity_heldout": diversity - 0.01, "vendi": 1 + 2 * diversity, "entropy": 4.0}
        known = {"seed": 0, "temperature": 0.99, "guidance_scale": 1.0, "negative": None, "lam": None, "beta": None}
        known |= {"protocol": "full", "scorers": SCORERS, "step": 0} | facts
        sampling = (
            known[name] for name in ("seed", "temperature", "guidance_scale", "negative", "protocol", "scorers")
        )
        key = key or "-".join(map(str, (series, model, *sampling)))
        key = "".join(letter if letter.isalnum() else "_" for letter in key)
        measurement = Measurement(
            prompts=PROMPTS,
            per_prompt={name: value + self.offsets for name, value in (values | dict(optional)).items()},
            cross_prompt_bound=0.9,
            audio=np.stack([tone(hertz) for hertz in (300, 450, 600, 900)]).reshape(2, 2, -1)[: 2 * audio],
            sample_rate=16_000,
            seconds=1.0,
            fad=None if fad is None else Fad(fad, fad / 2, reference, 10 * fad),
        )
        self.results.save(key, measurement)
        distances = (
            {} if fad is None else {"fad": fad, "fad_infinite": fad / 2, "kad": 10 * fad, "fad_reference": reference}
        )
        point = Point(
            key=key, run=Path(model).name, model=model, series=series, n_prompts=len(PROMPTS), n_samples=4,
            metrics=measurement.intervals(), seconds=1.0, **distances, **known,
        )  # fmt: skip
        self.results.points.append(point)
        return point


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    return Synthetic(tmp_path / "results")


@pytest.fixture
def whole(synthetic: Synthetic) -> Callable[[], Path]:
    """A results file with every series. The slider's front is curved and above those of guidance and temperature."""
    for seed in (0, 1):
        synthetic.add("betas", "base", 0.0, 0.6, fad=0.09, audio=True, seed=seed)
        for beta in (0, 5, 15):
            quality, diversity = 1.4 - 0.02 * beta + 0.1 * seed, 0.2 + 0.02 * beta
            synthetic.add("betas", f"runs/beta{beta}", quality, diversity, fad=0.05, beta=float(beta), seed=seed)
    for lam in np.linspace(0, 1, 5):
        quality, diversity = 1.4 - 0.3 * lam**2, 0.2 + 0.3 * lam
        model = f"runs/beta0:{1 - lam} runs/beta15:{lam}"
        synthetic.add("slider", model, quality, diversity, lam=float(lam))
    for scale in (1.0, 3.0, 7.0):
        for negative, series in (("Bad.", "guidance-base"), (None, "guidance-unconditional-base")):
            guidance = {"guidance_scale": scale, "negative": negative if scale > 1 else None}
            synthetic.add(series, "base", 0.2 * scale, 0.6 - 0.06 * scale, **guidance)
    for temperature in (0.7, 0.99, 1.2):
        synthetic.add("temperature-base", "base", 1 - temperature, 0.6 * temperature, temperature=temperature)
    synthetic.add("soup", "base:0.25 runs/beta0:0.25 runs/beta5:0.25 runs/beta15:0.25", 1.35, 0.35)
    for n, estimator in ((2, "pairs"), (8, "shared")):
        synthetic.add("samples", f"runs/n{n}-{estimator}", 1.0, 0.3 + 0.01 * n, beta=15.0)
    return synthetic.results.points.path


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., str]:
    """Creates a run folder with two measured points, and optionally a logged KL that falls."""

    def make(name: str, beta: float, logged: bool = True, protocol: str = "quick") -> str:
        run = Synthetic(tmp_path / "runs" / name)
        for step in (0, 500):
            run.add("", f"{name}/step-{step}", 1.0 + step / 1000, 0.5, beta=beta, step=step, protocol=protocol)
        with SummaryWriter(tmp_path / "runs" / name) as writer:
            for step in range(100 if logged else 0):
                writer.add_scalar("train/kl_per_token", 1 / (1 + step), step)
        return str(tmp_path / "runs" / name)

    return make
