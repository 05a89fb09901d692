"""The shipped models are complete, loadable and small, and have model cards."""

from __future__ import annotations

import pytest
import torch

from qd.models.checkpoints.resolver import ASSETS
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.scorers.loading import load_quality

CARDS = ("base", "base/codec", "adherence", "preference", "embedder", "embedder_heldout")


def test_the_base_model_samples_audio():
    music = MusicGen.load("base")
    assert sum(p.numel() for m in (music.lm, music.text_encoder) for p in m.parameters()) <= 6_000_000
    uniforms = counter_uniforms(0, 0, range(2), music.lm.codebooks, 8 + music.lm.codebooks - 1)
    condition = music.condition(["A fast chiptune.", "Ñandú? 日本, of any text at all."])
    sampled = Sampler(music.lm).sample(condition, 8, uniforms=lambda step: uniforms[..., step])
    audio = music.decode(sampled.codes)
    assert audio.shape == (2, 8 * 640) and audio.isfinite().all()


def test_embedders_and_scorers_measure_a_clip():
    audio = 0.1 * torch.randn(2, 64_000, generator=torch.Generator().manual_seed(0))
    embeddings = [load_embedder(name)(audio) for name in ("builtin", "builtin-heldout")]
    assert embeddings[0].shape[1] != embeddings[1].shape[1]
    assert all(torch.allclose(e.norm(dim=1), torch.ones(2), atol=1e-5) for e in embeddings)
    quality = load_quality()
    scores = [scorer(audio, 16_000, ["a waltz", "techno"]) for scorer in (quality.adherence, quality.preference)]
    assert all(score.shape == (2,) and score.isfinite().all() for score in scores)


@pytest.mark.parametrize("card", CARDS)
def test_every_model_has_a_card_with_its_command_and_measurements(card):
    text = (ASSETS / card / "README.md").read_text(encoding="utf-8")
    assert "| command | qd base --stage" in text or "make train-embedder" in text
    assert "| measured |" in text or "## Held-out quality" in text


def test_the_shipped_weights_stay_small():
    sizes = {path: path.stat().st_size for path in ASSETS.rglob("*.safetensors")}
    assert sum(sizes.values()) <= 40_000_000
    assert sum(size for path, size in sizes.items() if "finetuned" in path.parts) <= 16_000_000
