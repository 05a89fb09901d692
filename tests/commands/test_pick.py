"""Picking a model from the measured front."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import qd.evaluation.evaluator as evaluator_module
from qd.cli.main import main
from qd.commands.pick import pick
from qd.evaluation.evaluator import frozen_fingerprint, measurement_key
from qd.evaluation.measure import Sampling
from qd.evaluation.points import PointsFile
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.musicgen import MusicGen
from tests.conftest import CLIP_SECONDS
from tests.models.merging.conftest import sibling
from tests.tiny_run import stand_in_quality

REPORT = runpy.run_path(str(Path(__file__).parents[1] / "report" / "conftest.py"))
Synthetic, PROMPTS, SCORERS = REPORT["Synthetic"], REPORT["PROMPTS"], REPORT["SCORERS"]
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
    synthetic, weights = Synthetic(tmp_path / "results"), WeightSwapper()
    a, b = models

    def add(series: str, model: str, *place: float, negative: str | None = None, **facts) -> None:
        music, scale = weights.load(ModelSpec.parse(model), torch.device("cpu")), facts.get("guidance_scale", 1.0)
        sampling = Sampling(guidance_scale=scale, negative=negative)
        key = measurement_key(weights.fingerprint, frozen_fingerprint(music), PROMPTS, 4, sampling, SCORERS)
        synthetic.add(series, model, *place, key=key, negative=negative, **facts)

    for lam in (0.0, 0.5, 1.0):
        add("slider", f"{a}:{1 - lam} {b}:{lam}", 1.4 - 0.4 * lam**2, 0.2 + 0.3 * lam, lam=lam)
    add("betas", f"{a}:0.9 {b}:0.1", 1.0, 0.25, lam=0.1)  # dominated
    add("guidance", str(a), 1.35, 0.45, guidance_scale=3.0, negative="Bad.")
    return synthetic.results.points.path


def test_best_quality_at_a_minimum_diversity(points: Path, models, tmp_path: Path) -> None:
    setting, folder = pick(points, diversity=0.3, out=tmp_path / "picked")
    assert setting.point.lam == 0.5
    a, b, merged = (load_file(one / DECODER) for one in (*models, folder))
    for name, weight in merged.items():
        torch.testing.assert_close(weight, 0.5 * a[name] + 0.5 * b[name])
    card = (folder / "README.md").read_text()
    assert "diversity of at least 0.3" in card and "3 models are on the front" in card
    assert "- quality 1.300 [" in card and "0.100 below the best of the front" in card
    assert "12 prompts × 4 samples (full)" in card


def test_best_diversity_at_a_minimum_quality(points: Path, models, tmp_path: Path) -> None:
    setting, folder = pick(points, quality=1.35, out=tmp_path / "picked")
    assert setting.point.lam == 0.0
    assert (folder / DECODER).read_bytes() == (models[0] / DECODER).read_bytes()
    card = (folder / "README.md").read_text()  # of an end of the front
    assert "- quality 1.400 [" in card and "0.000 below the best of the front" in card and "-0.000" not in card


def generation(folder: Path) -> dict:
    return json.loads((folder / "decoder" / "generation_config.json").read_text())


def test_plain_transformers_samples_as_in_the_measurement(points: Path, models, tmp_path: Path) -> None:
    file = models[0] / "decoder" / "generation_config.json"
    file.write_text(json.dumps(generation(models[0]) | {"guidance_scale": 3.0, "top_k": 50}))
    _, folder = pick(points, diversity=0.3, out=tmp_path / "picked")
    settings = generation(folder)
    # 4 s of 25 frames a second, the delay of 4 codebooks
    expected = {"do_sample": True, "temperature": 0.99, "top_k": 0, "guidance_scale": 1.0, "max_new_tokens": 103}
    assert expected.items() <= settings.items()


def test_changed_weights_are_an_error(points: Path, models, tmp_path: Path) -> None:
    shutil.copyfile(models[0] / DECODER, models[1] / DECODER)
    with pytest.raises(ValueError, match="no longer has the weights"):
        pick(points, diversity=0.45, out=tmp_path / "picked")
    assert not (tmp_path / "picked").exists()
    pick(points, quality=1.38, out=tmp_path / "picked")  # only the other model


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "by an earlier version"])
def test_the_measured_step_is_picked_even_if_the_run_continued(
    earlier: bool, tiny_model: Path, tiny_embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator_module, "load_quality", stand_in_quality)
    run, file = tmp_path / "runs" / "x", tmp_path / "results" / "points.jsonl"
    first = sibling(tiny_model, run / "step-000001", 1)
    (first / "recipe.yaml").write_text("{kind: distillation, run: x, step: 1, config: {beta: 1.0}}")
    command = ["evaluate", "--device=cpu", f"--model={run}", "--out", str(file), f"embedder={tiny_embedder}"]
    command += [f"eval_embedder={tiny_embedder}", f"seconds={CLIP_SECONDS}", "n_prompts=3", "n_samples=2"]
    assert main(command) == 0
    (point,) = PointsFile(file).read()
    assert point.model == str(first)
    if earlier:
        file.write_text(file.read_text().replace(str(first), str(run)))
        assert main(command) == 0 and len(PointsFile(file).read()) == 1
    sibling(tiny_model, run / "step-000002", 2)
    _, folder = pick(file, diversity=0.0, out=tmp_path / "picked")
    assert (folder / DECODER).read_bytes() == (first / DECODER).read_bytes()


def test_guidance_needs_permission(points: Path, tmp_path: Path) -> None:
    setting, _ = pick(points, diversity=0.4, allow_guidance=True, out=tmp_path / "guided")
    assert setting.point.guidance_scale == 3
    assert "γ = 3 against “Bad.” (`qd sample`; plain" in (tmp_path / "guided" / "README.md").read_text()
    assert generation(tmp_path / "guided")["guidance_scale"] == 3
    setting, _ = pick(points, diversity=0.4, out=tmp_path / "unguided")
    assert setting.point.lam == 1


def test_bad_targets(points: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no measured model has diversity 0.7; the front reaches 0.500, with quality 1"
    ):
        pick(points, diversity=0.7)
    for wishes in ({}, {"quality": 1.0, "diversity": 0.3}):
        with pytest.raises(ValueError, match="name one target"):
            pick(points, **wishes)
    with pytest.raises(ValueError, match="exists already"):
        pick(points, diversity=0.3, out=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="out: '.*file' is a file"):
        pick(points, diversity=0.3, out=tmp_path / "file" / "model")
