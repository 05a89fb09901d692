from __future__ import annotations

import numpy as np
import pytest
import torch

from qd.builtin import gate
from qd.builtin.gate import GateConfig, compare
from qd.config.protocols import Protocol
from qd.evaluation.columns import METRICS
from qd.evaluation.evaluator import Evaluator
from qd.evaluation.measurement import Measurement
from qd.models.embedders.audio_vit import AudioViT
from qd.models.musicgen import MusicGen
from qd.scorers.protocol import Quality
from tests.power_scorer import PowerScorer


def _measurement(quality: np.ndarray, diversity: np.ndarray) -> Measurement:
    values = {name: np.zeros_like(quality) for name in METRICS} | {"quality": quality, "diversity": diversity}
    prompts = tuple(f"prompt {i}" for i in range(len(quality)))
    return Measurement(prompts, values, 0.8, np.zeros((0, 8), np.float32), 16_000, 1.0)


@pytest.mark.parametrize(
    ("gain", "share_of_diversity", "passes"),
    [(0.5, 0.8, True), (0.5, 0.95, False), (0.0, 0.8, False), (-0.5, 0.8, False), (0.5, 1.2, False)],
)
def test_gate_requires_more_quality_and_less_diversity(gain, share_of_diversity, passes):
    rng = np.random.default_rng(0)
    quality, diversity = rng.normal(size=101), rng.uniform(0.3, 0.6, 101)
    guided = _measurement(quality + gain + 0.3 * rng.normal(size=101), share_of_diversity * diversity)
    result = compare(_measurement(quality, diversity), guided)
    assert result.passed is passes
    assert result.relative_diversity == pytest.approx(share_of_diversity - 1)
    assert result.quality.lo < result.quality.mean < result.quality.hi


def test_an_uncertain_gain_does_not_pass():
    rng = np.random.default_rng(1)
    quality, diversity = rng.normal(size=20), np.full(20, 0.5)
    noise = rng.normal(size=20)
    guided = _measurement(quality + 0.05 + (noise - noise.mean()), 0.5 * diversity)
    result = compare(_measurement(quality, diversity), guided)
    assert result.quality.mean > 0 > result.quality.lo
    assert not result.passed


def test_a_second_gate_measures_only_what_has_changed(tiny_model, tiny_embedder, tmp_path, monkeypatch):
    scorers, measured, measure = [PowerScorer("adherence"), PowerScorer("preference")], [], Evaluator.measure
    monkeypatch.setattr(gate, "load_quality", lambda: Quality(*scorers))
    monkeypatch.setattr(gate, "load_embedder", lambda name: AudioViT.from_pretrained(tiny_embedder))
    monkeypatch.setattr(
        Evaluator, "measure", lambda self, lm, sampling: measured.append(sampling) or measure(self, lm, sampling)
    )

    def measurements(model) -> int:
        measured.clear()
        config = GateConfig(scales=(3.0,))
        gate.run(config, model, tmp_path / "gate", Protocol("quick", "development", 2, 2, seconds=0.32))
        return len(measured)

    assert measurements(tiny_model) == 3  # unguided; guided with and without the negative prompt
    report = (tmp_path / "gate/gate.md").read_text()
    assert measurements(tiny_model) == 0
    assert (tmp_path / "gate/gate.md").read_text() == report

    rebuilt = MusicGen.load(tiny_model)
    with torch.no_grad():
        rebuilt.lm.decoder.lm_heads[0].weight.mul_(1.5)
    rebuilt.save(tmp_path / "rebuilt")
    assert measurements(tmp_path / "rebuilt") == 3
    assert (tmp_path / "gate/gate.md").read_text() != report
    scorers[0] = PowerScorer("adherence", version="2")
    assert measurements(tmp_path / "rebuilt") == 3
