"""Picking a model from the measured front."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qd.models.musicgen import MusicGen
from qd.pick import pick

Synthetic = runpy.run_path(str(Path(__file__).with_name("report") / "conftest.py"))["Synthetic"]
DECODER = "decoder/model.safetensors"


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two models of one base."""
    folders = tmp_path / "beta0", tmp_path / "beta15"
    for seed, folder in enumerate(folders):
        music = MusicGen.load(tiny_model)
        torch.manual_seed(seed)
        for weight in music.lm.parameters():
            weight.data.add_(0.01 * torch.randn_like(weight))
        music.save(folder)
    return folders


@pytest.fixture
def points(models: tuple[Path, Path], tmp_path: Path) -> Path:
    synthetic = Synthetic(tmp_path / "results")
    a, b = models
    for lam in (0.0, 0.5, 1.0):
        model = f"{a}:{1 - lam} {b}:{lam}"
        synthetic.add("lerp-beta0-beta15", model, 1.4 - 0.4 * lam**2, 0.2 + 0.3 * lam, lam=lam)
    synthetic.add("betas", str(a), 1.0, 0.25, beta=0.0)  # dominated
    synthetic.add("guidance-base", "base", 1.35, 0.45, guidance_scale=3.0)
    return synthetic.results.points.path


def test_the_best_quality_that_is_diverse_enough(points: Path, models, tmp_path: Path) -> None:
    setting, folder = pick(points, diversity=0.3, out=tmp_path / "picked")
    assert setting.point.lam == 0.5
    a, b, merged = (load_file(one / DECODER) for one in (*models, folder))
    for name, weight in merged.items():
        torch.testing.assert_close(weight, 0.5 * a[name] + 0.5 * b[name])
    card = (folder / "README.md").read_text()
    assert "Asked for diversity of at least 0.3, of 3 models on the front" in card
    assert "- quality 1.300 [" in card and "the best of the front less 0.100" in card
    assert "12 prompts × 4 samples (full)" in card


def test_the_most_diverse_that_is_good_enough(points: Path, models, tmp_path: Path) -> None:
    setting, folder = pick(points, quality=1.35, out=tmp_path / "picked")
    assert setting.point.lam == 0.0
    assert (folder / DECODER).read_bytes() == (models[0] / DECODER).read_bytes()


def test_guidance_only_when_it_is_allowed(points: Path, tmp_path: Path) -> None:
    setting, _ = pick(points, diversity=0.4, allow_guidance=True, out=tmp_path / "guided")
    assert setting.point.guidance_scale == 3
    setting, _ = pick(points, diversity=0.4, out=tmp_path / "unguided")
    assert setting.point.lam == 1


def test_bad_wishes(points: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no measured model has diversity 0.7; the front reaches 0.500, with quality 1"
    ):
        pick(points, diversity=0.7)
    for wishes in ({}, {"quality": 1.0, "diversity": 0.3}):
        with pytest.raises(ValueError, match="name one wish"):
            pick(points, **wishes)
    with pytest.raises(ValueError, match="is there already"):
        pick(points, diversity=0.3, out=tmp_path)
