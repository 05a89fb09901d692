"""CLAP's audio tower, compared with the library's extractor and model, with random weights."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from transformers import ClapFeatureExtractor, ClapModel

from qd.models.checkpoints.pretrained import load_transformers
from qd.models.embedders.clap import ClapEmbedder, ClapFeatures
from qd.models.embedders.loading import Embedder, load_embedder
from qd.scorers.loading import load_adherence

RATE = 48_000


def noise(count: int, seconds: float, seed: int = 0) -> torch.Tensor:
    """Noise clips with different spectra."""
    white = 0.2 * torch.randn(count, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    return white + torch.linspace(-1, 1, count)[:, None] * white.roll(1, dims=1)


def chord(seconds: float) -> torch.Tensor:
    """Decaying tones; between them the spectrum is nearly empty."""
    t = torch.arange(round(seconds * RATE)) / RATE
    return sum(0.2 * torch.sin(2 * math.pi * hertz * t) for hertz in (220, 330, 1200))[None] * torch.exp(-t)


def extracted(extractor: ClapFeatureExtractor, audio: torch.Tensor) -> torch.Tensor:
    return extractor(list(audio.numpy()), sampling_rate=RATE, return_tensors="pt")["input_features"]


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_features_equal_the_librarys(truncation, padding):
    """Within 0.01 dB, down to 90 dB below the loudest band; nearly empty bands have float32 errors of up to 1 dB."""
    extractor = ClapFeatureExtractor(truncation=truncation, padding=padding, frequency_min=50)
    for audio in (noise(2, 4.0), noise(1, 3.3), chord(4.0), noise(1, 10.0), torch.zeros(1, RATE)):
        ours, theirs = ClapFeatures(extractor)(audio), extracted(extractor, audio)
        assert ours.shape == theirs.shape == (len(audio), 4 if truncation == "fusion" else 1, 1001, 64)
        loud = theirs > theirs.max() - 90
        torch.testing.assert_close(ours[loud], theirs[loud], atol=0.01, rtol=0)
        torch.testing.assert_close(ours, theirs, atol=1.0, rtol=0)


@pytest.mark.parametrize("folder", ["tiny_clap", "fusing_clap"])
def test_embeddings_equal_the_librarys(folder, request):
    folder = request.getfixturevalue(folder)
    embedder = load_embedder(f"clap:{folder}")
    assert isinstance(embedder, Embedder)
    assert (embedder.sample_rate, embedder.embedding_width, embedder.clip_seconds) == (RATE, 12, 10.0)
    audio = torch.cat([noise(2, 4.0), chord(4.0)])
    model, extractor = ClapModel.from_pretrained(folder), ClapFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        expected = model.get_audio_features(extracted(extractor, audio), is_longer=torch.zeros(3, 1, dtype=torch.bool))
        torch.testing.assert_close(embedder(audio, RATE), expected.pooler_output, atol=1e-3, rtol=0)
    assert (embedder(audio) @ embedder(audio).T < 0.99).any()  # the random model distinguishes the clips


def test_only_the_audio_tower_is_loaded_frozen_in_float32(tiny_clap, tmp_path):
    folder = shutil.copytree(tiny_clap, tmp_path / "half")
    ClapModel.from_pretrained(tiny_clap).half().save_pretrained(folder)
    embedder = load_embedder(f"clap:{folder}")
    assert not any("text" in name for name in embedder.state_dict())
    assert {p.dtype for p in embedder.parameters()} == {torch.float32}
    assert not embedder.training and not any(p.requires_grad for p in embedder.parameters())


def test_a_long_clip_gets_the_normalised_mean_of_its_windows(tiny_clap):
    embedder = load_embedder(f"clap:{tiny_clap}")
    first, second = noise(2, 10.0)
    halves = embedder(torch.stack([first, second]))
    mean = halves.mean(0)
    torch.testing.assert_close(embedder(torch.cat([first, second])[None])[0], mean / mean.norm(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 100, 48_000, 600_000])
def test_silence_of_any_length_has_the_same_finite_embedding(tiny_clap, samples):
    embedder = load_embedder(f"clap:{tiny_clap}")
    embedding = embedder(torch.zeros(1, samples))
    torch.testing.assert_close(embedding.norm(), torch.tensor(1.0))
    torch.testing.assert_close(embedding, embedder(torch.zeros(1, 480_000)))


def test_a_hub_name_is_looked_up_with_one_request(tiny_clap, monkeypatch):
    """Without a network, the library itself retries for half a minute."""
    requests, loaded = [], []

    def commit(name, offline):
        requests.append((name, offline))
        return "c0ffee"

    def local(kind, source, **options):
        loaded.append((source, options))
        return load_transformers(kind, str(tiny_clap))

    monkeypatch.setattr("qd.models.checkpoints.pretrained.hub_commit", commit)
    for module in ("qd.models.embedders.clap", "qd.scorers.clap"):
        monkeypatch.setattr(f"{module}.load_transformers", local)
    load_embedder("clap:owner/name")
    assert requests == [("owner/name", False)]
    load_adherence("clap:owner/name")
    assert loaded == [("owner/name", {"revision": "c0ffee", "local_files_only": False})] * 6
    assert len(requests) == 3


def test_models_other_than_clap_are_refused(tiny_clap, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="'/no/such/folder' does not exist"):
        load_embedder("clap:/no/such/folder")
    with pytest.raises(ValueError, match="'nobody/has-this-clap' cannot be loaded.*hf download"):
        ClapEmbedder.from_pretrained("nobody/has-this-clap", local_files_only=True)
    with pytest.raises(ValueError, match="lacks config.json"):
        load_embedder(f"clap:{tmp_path}")
    with pytest.raises(ValueError, match=r"preprocessor_config|cannot be loaded"):
        load_embedder(f"clap:{tiny_embedder}")
    with pytest.raises(ValueError, match="8000 Hz.*48000 Hz.*resample"):
        load_embedder(f"clap:{tiny_clap}")(noise(1, 0.1), 8000)
    text_only = shutil.copytree(tiny_clap, tmp_path / "text")
    ClapModel.from_pretrained(tiny_clap).text_model.save_pretrained(text_only)
    (text_only / "config.json").write_text((tiny_clap / "config.json").read_text())
    with pytest.raises(ValueError, match="lacks .* weights of this model"):
        load_embedder(f"clap:{text_only}")
    odd = shutil.copytree(tiny_clap, tmp_path / "odd")
    config = json.loads((odd / "preprocessor_config.json").read_text())
    (odd / "preprocessor_config.json").write_text(json.dumps(config | {"padding": "mirror"}))
    with pytest.raises(ValueError, match="'mirror'.*repeatpad"):
        load_embedder(f"clap:{odd}")
