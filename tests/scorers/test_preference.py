from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from qd.models.checkpoints.resolver import ASSETS
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.scorers import preference as module
from qd.scorers.loading import load_quality
from qd.scorers.preference import NamedEmbedder, PreferenceConfig, PreferenceScorer, preference_head

RATE = 16_000
SMALL = {"clip_seconds": 0.32, "n_mels": 20, "layers": 1, "width": 16, "heads": 2, "head_dim": 8, "mlp_width": 32}


def seeded(build, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


class Foreign(nn.Module):
    """An embedder that is not an AudioViT: the weighted loudness of four parts of the clip."""

    sample_rate, embedding_width, clip_seconds = 8_000, 4, 0.5

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        assert sample_rate in (None, self.sample_rate)
        loudness = F.adaptive_avg_pool1d(audio[:, None].square(), 4)[:, 0]
        return F.normalize(loudness * self.weight, dim=-1)


@pytest.fixture
def foreign(monkeypatch):
    """Replacement for an embedder of another library, loaded by name."""
    embedder = seeded(Foreign)
    monkeypatch.setattr(module, "load_embedder", {"clap:x": embedder}.__getitem__)
    return embedder


def clips(count: int = 3, samples: int = 5120) -> Tensor:
    return 0.3 * torch.randn(count, samples, generator=torch.Generator().manual_seed(1))


def test_is_an_affine_logit_and_ignores_prompts():
    config = PreferenceConfig(AudioViTConfig(embedding_width=8, **SMALL), 16, 3.0, 0.25)
    scorer = seeded(lambda: PreferenceScorer(config))
    expected = 3.0 * scorer.head(scorer.audio(clips())).squeeze(1) + 0.25
    torch.testing.assert_close(scorer(clips(), RATE, ["a", "b", "c"]), expected)
    torch.testing.assert_close(scorer(clips(), RATE, [""] * 3), expected)


def test_the_shipped_scorer_gives_the_scores_of_its_first_release():
    """Values of the first release, when the class only supported its own embedder."""
    scorer = load_quality().preference
    audio = 0.3 * torch.randn(3, 70_000, generator=torch.Generator().manual_seed(1))
    assert scorer.version == "e4df40ff"
    shipped = [float.fromhex(f"-0x1.{digits}p-1") for digits in ("c9d82a", "cce788", "c59d2a")]
    # Other machines may round sums differently; the scores equal those of the shipped file's parts bit for bit.
    scores = scorer(audio, RATE, ["a"] * 3)
    assert scores.tolist() == pytest.approx(shipped, abs=1e-5)
    folder = ASSETS / "preference"
    content, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    tower, head = AudioViT(AudioViTConfig(**content["audio"])).eval(), preference_head(128, content["head_width"])
    for name, part in {"audio.": tower, "head.": head}.items():
        part.load_state_dict({k.removeprefix(name): t.float() for k, t in weights.items() if k.startswith(name)})
    with torch.no_grad():
        assert torch.equal(scores, content["scale"] * head(tower(audio)).squeeze(-1) + content["offset"])


def test_a_head_on_an_audio_vit_saves_its_embedder(tmp_path):
    embedder = seeded(lambda: AudioViT(AudioViTConfig(embedding_width=8, **SMALL)))
    scorer = PreferenceScorer.over(embedder, "builtin", 16).eval()
    scorer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content.keys() == {"model_type", "audio", "head_width", "scale", "offset"}
    loaded = PreferenceScorer.from_pretrained(tmp_path)
    assert torch.equal(loaded(clips(), RATE, [""] * 3), scorer(clips(), RATE, [""] * 3))


def test_a_head_on_another_embedder_saves_its_name(foreign, tmp_path):
    scorer = PreferenceScorer.over(foreign, "clap:x", 16).eval()
    scorer.config.scale, scorer.config.offset = 2.0, -1.0
    scorer.save_pretrained(tmp_path)
    assert all(name.startswith("head.") for name in load_file(tmp_path / "model.safetensors"))
    loaded = PreferenceScorer.from_pretrained(tmp_path)
    assert torch.equal(loaded(clips(), RATE, [""] * 3), scorer(clips(), RATE, [""] * 3))
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_other_weights_under_the_same_name_are_noticed(foreign, tmp_path):
    PreferenceScorer.over(foreign, "clap:x", 16).save_pretrained(tmp_path)
    foreign.weight.data += 1
    with pytest.raises(ValueError, match="embedder 'clap:x' with weights .* which now has"):
        PreferenceScorer.from_pretrained(tmp_path)


def test_a_missing_embedder_is_named(tmp_path):
    PreferenceScorer.over(seeded(Foreign), "runs/gone", 16).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"scorer folder {tmp_path}.*embedder 'runs/gone'"):
        PreferenceScorer.from_pretrained(tmp_path)


def test_a_config_without_an_embedder_of_its_own_needs_one():
    with pytest.raises(ValueError, match="embedder of its own"):
        PreferenceScorer(PreferenceConfig(None, embedder=NamedEmbedder("clap:x", "0")))
