"""Values of the training objective: compared with a training step, and models that cannot be scored."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qd.data.prompts import PromptBatch
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.objectives.baselines import Baseline

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "objective_values.py"


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_samples_are_scored_as_a_training_step_scores_them(script, tiny_config) -> None:
    config, prompts = tiny_config(), ["a calm piano piece", "fast drums", "an 8-bit melody", "strings", "a waltz"]
    module = DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    kl, diversity = script.score(module, prompts, "tiny").T
    module.training_step(PromptBatch(prompts, list(range(5))), 0)
    torch.testing.assert_close(kl, module.latest.kl.mean(dim=1), atol=1e-4, rtol=1e-4)
    rollout = module.rollout(PromptBatch(prompts, list(range(5))))
    for group, value in zip(module.embed(module.decode(rollout)).view(5, 4, -1), diversity, strict=True):
        pairs = [1 - a @ b for i, a in enumerate(group) for j, b in enumerate(group) if i != j]
        assert sum(pairs) / 12 == pytest.approx(value.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("model", "problem"),
    [("{tiny}", "{tiny} .* base"), ("base:0.5 beta0:0.2", "0.5, 0.2 .* 0.7")],
)
def test_a_model_that_cannot_replace_the_base_is_refused(
    script,
    model: str,
    problem: str,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, problem = model.format(tiny=tiny_model), problem.format(tiny=tiny_model)
    monkeypatch.setattr(sys, "argv", ["objective_values.py", "--prompts", "2", "--model", model])
    assert script.main() == 2
    assert re.search(problem, capsys.readouterr().err)
