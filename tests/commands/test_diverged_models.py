"""Every command that samples a model stops if the model's scores are not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import qd.evaluation.evaluator as evaluator_module
from qd.cli.main import main
from qd.models.musicgen import MusicGen
from qd.models.sampling.finite import NonFiniteScoresError, decode_finite
from qd.models.sampling.sampler import Sampled, Sampler
from tests.conftest import CLIP_SECONDS
from tests.models.merging.conftest import rewrite, sibling
from tests.tiny_run import stand_in_quality

PLACE = "lm_heads.0.weight"


@pytest.fixture
def diverged(tiny_model: Path, tmp_path: Path) -> Path:
    """A model with one NaN in a weight of its decoder."""

    def change(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if path.startswith("decoder/") and path.endswith(PLACE):
            tensor[0, 0] = torch.nan
        return tensor

    rewrite(sibling(tiny_model, tmp_path / "diverged", 1), change)
    return tmp_path / "diverged"


@pytest.fixture
def arguments(diverged: Path, tiny_embedder: Path, tmp_path: Path, monkeypatch):
    """The words of each command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluator_module, "load_quality", stand_in_quality)
    (tmp_path / "prompts.txt").write_text("a waltz\nfast drums\ntechno\n")
    model, seconds = str(diverged), f"seconds={CLIP_SECONDS}"
    embedders = [f"embedder={tiny_embedder}", f"eval_embedder={tiny_embedder}", seconds]
    series = [{"name": "one", "models": {"names": ["x"]}}]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"models": {"x": model}, "series": series}))
    few = ["n_prompts=3", "n_samples=2"]
    options = ["--model", model, "--device=cpu"]
    return {
        "sample": [*options, "--prompt=x", "--n=2", f"--seconds={CLIP_SECONDS}", "--out=out"],
        "fad": [*options, "--prompts=prompts.txt", f"--seconds={CLIP_SECONDS}", "--n-reference=12", "--out=out/a.json"],
        "evaluate": [*options, *embedders, *few, "--out=out/points.jsonl"],
        "sweep": ["--config=sweep.yaml", "--device=cpu", *embedders, *few, "out=out/points.jsonl"],
        "headroom": [*options, "--prompts=prompts.txt", "--samples=8", "front_samples=4", *embedders, "--out=out"],
    }


@pytest.mark.parametrize("command", ["sample", "fad", "evaluate", "sweep", "headroom"])
def test_a_model_with_scores_that_are_not_finite_is_not_sampled(command, arguments, diverged, tmp_path, capsys):
    assert main([command, *arguments[command]]) == 2
    error = capsys.readouterr().err
    assert f"model '{diverged}'" in error or (command == "sweep" and "model 'x'" in error), error
    assert "not finite" in error and PLACE in error and "an earlier step" in error
    written = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".wav", ".json", ".jsonl", ".md")]
    assert [path for path in written if path.stat().st_size] == []


def test_the_likely_cause_is_named(tiny_model: Path):
    music = MusicGen.load(tiny_model)
    codes = torch.zeros(2, music.lm.codebooks, 4, dtype=torch.long)
    sampled = Sampled(codes, torch.zeros(codes.shape), torch.tensor([1.0, 0.0]))
    assert decode_finite(music, sampled).isfinite().all()
    broken = Sampled(codes, sampled.log_probs, torch.tensor([1.0, torch.inf]))
    drawn = sampled.log_probs.index_fill(0, torch.tensor(1), torch.nan)
    with pytest.raises(NonFiniteScoresError, match="1 of 2 sequences"):
        decode_finite(music, Sampled(codes, drawn, sampled.entropy))
    with pytest.raises(NonFiniteScoresError, match="1 of 2 sequences.* all weights are finite"):
        decode_finite(music, broken)
    music.lm.half()
    with pytest.raises(NonFiniteScoresError, match=r"float16 overflows.*bfloat16 or float32"):
        decode_finite(music, broken)
    for weight in music.codec.parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(NonFiniteScoresError, match=r"codec gives audio .* the weight codec\."):
        decode_finite(music, sampled)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_every_loop_shows_scores_that_are_not_finite(value: float, tiny_model: Path, monkeypatch):
    music = MusicGen.load(tiny_model)
    music.lm.decoder.lm_heads[0].weight.data[0] = value
    condition, uniforms = music.condition(["x"]), torch.full((1, music.lm.codebooks), 0.5)
    for compiled in (True, False):
        monkeypatch.setattr("qd.models.sampling.sampler.runs_compiled", lambda lm, use=compiled: use)
        sampled = Sampler(music.lm).sample(condition, 4, uniforms=lambda step: uniforms)
        assert not sampled.entropy.isfinite().any()
