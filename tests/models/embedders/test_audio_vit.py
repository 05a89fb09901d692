"""The audio transformer: shapes, rotary positions, odd inputs, files."""

from __future__ import annotations

import json
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import load_config
from qd.models.embedders.audio_vit import Attention, AudioViT, AudioViTConfig, rotary_table, rotate
from qd.models.embedders.loading import Embedder, load_embedder

TINY = {
    "sample_rate": 800,
    "clip_seconds": 0.5,
    "n_fft": 64,
    "window_length": 64,
    "hop_length": 20,
    "n_mels": 8,
    "layers": 2,
    "width": 12,
    "heads": 3,
    "head_dim": 6,
    "mlp_width": 20,
    "embedding_width": 5,
}


def tiny_model(seed: int = 0, **changes: object) -> AudioViT:
    torch.manual_seed(seed)
    return AudioViT(AudioViTConfig(**(TINY | changes))).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_embeddings_have_unit_norm_and_the_protocol_is_met():
    model = tiny_model()
    assert isinstance(model, Embedder)
    embeddings = model(noise(3, 400), 800)
    assert embeddings.shape == (3, model.embedding_width) == (3, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_rotation_equals_complex_multiplication():
    x, table = noise(1, 1, 7, 6), rotary_table(7, 6)
    pairs = torch.complex(x[..., :3], x[..., 3:])
    for position in range(7):
        for i in range(3):
            angle = torch.tensor(position * 10_000 ** (-2 * i / 6))
            expected = pairs[0, 0, position, i] * torch.polar(torch.ones(()), angle)
            result = rotate(x, table)[0, 0, position]
            torch.testing.assert_close(torch.stack([result[i], result[i + 3]]), torch.view_as_real(expected))


@settings(max_examples=30, deadline=None)
@given(m=st.integers(0, 40), n=st.integers(0, 40), shift=st.integers(0, 200), seed=st.integers(0, 99))
def test_rotated_products_depend_only_on_the_distance(m: int, n: int, shift: int, seed: int):
    query, key = noise(2, 8, seed=seed)
    table = rotary_table(256, 8)

    def product(i: int, j: int) -> torch.Tensor:
        rows = rotate(torch.stack([query, key])[:, None, None].expand(2, 1, 256, 8), table)[:, 0]
        return rows[0, i] @ rows[1, j]

    torch.testing.assert_close(product(m, n), product(m + shift, n + shift), atol=2e-4, rtol=0)


def test_attention_equals_a_naive_loop():
    torch.manual_seed(0)
    attention = Attention(AudioViTConfig(**TINY))
    x, table = noise(1, 5, 12), rotary_table(5, 6)
    qkv = attention.qkv(x)[0].view(5, 3, 3, 6)
    mixed = torch.zeros(5, 3, 6)
    for head in range(3):
        query, key, value = qkv[:, :, head].unbind(1)
        query, key = rotate(query[None, None], table)[0, 0], rotate(key[None, None], table)[0, 0]
        for t in range(5):
            weights = torch.stack([query[t] @ key[s] / 6**0.5 for s in range(5)]).softmax(0)
            mixed[t, head] = sum(weights[s] * value[s] for s in range(5))
    torch.testing.assert_close(attention(x, table)[0], attention.out(mixed.flatten(1)))


@pytest.mark.parametrize(("heads", "head_dim"), [(3, 6), (5, 2), (1, 32)])
def test_heads_need_not_divide_the_width(heads: int, head_dim: int):
    assert tiny_model(heads=heads, head_dim=head_dim)(noise(2, 400)).shape == (2, 5)


def test_paper_config_has_the_papers_size():
    config = load_config(EmbedderTrainConfig, "embedder", "paper").model
    inner, width, mlp = 8 * 64, 512, 1024
    attention = 3 * (width * inner + inner) + inner * width + width
    block = attention + (width * mlp + mlp) + (mlp * width + width) + 2 * 2 * width
    expected = 156 * width + 12 * block + 2 * width + (width * 192 + 192)
    # 79,872 + 12 · 2,102,784 + 1,024 + 98,496
    assert expected == 25_412_800
    with torch.device("meta"):
        assert sum(p.numel() for p in AudioViT(config).parameters()) == expected
    assert round(expected / 1e6, 2) == 25.41
    assert config.frames == 251
    assert AudioViTConfig(hop_length=256, sample_rate=24_000).frames == 376


def test_an_overlay_has_the_papers_376_frames_and_no_other_difference():
    paper, long = (load_config(EmbedderTrainConfig, "embedder", name) for name in ("paper", "frames376"))
    assert (paper.model.frames, long.model.frames) == (1 + 4 * 16_000 // 256, 376)
    assert replace(long, model=replace(long.model, clip_seconds=paper.model.clip_seconds)) == paper
    assert long.train_samples <= 8 * 16_000  # two clips fit into a built-in piece of 16 s


def test_the_papers_mel_equals_librosas():
    config = load_config(EmbedderTrainConfig, "embedder", "paper").model
    audio = 0.1 * noise(2, config.clip_samples)
    mel = AudioViT(replace(config, layers=1)).mel(audio)
    assert mel.shape == (2, 156, config.frames)
    for clip, ours in zip(audio, mel, strict=True):
        theirs = librosa.feature.melspectrogram(
            y=clip.numpy(), sr=16_000, n_fft=2048, win_length=512, hop_length=256, n_mels=156, htk=True, norm=None
        )
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4)


@pytest.mark.parametrize(("name", "limit"), [("default", 0.7e6), ("quick", 0.7e6), ("heldout", 0.5e6)])
def test_shipped_embedders_are_small(name: str, limit: float):
    model = AudioViT(load_config(EmbedderTrainConfig, "embedder", name).model)
    assert sum(p.numel() for p in model.parameters()) <= limit
    assert model.mel(torch.zeros(1, model.config.clip_samples)).shape[-1] == model.config.frames == len(model.rotary[0])


@pytest.mark.parametrize("log_mel", [True, False])
def test_silence_has_a_finite_embedding_and_gradient(log_mel: bool):
    model = tiny_model(log_mel=log_mel)
    embedding = model(torch.zeros(2, 400))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(embedding[0], embedding[1])
    embedding.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_short_clips_are_padded_and_long_ones_averaged_over_windows():
    model, audio = tiny_model(), noise(2, 1000)
    padded = torch.cat([audio[:, :300], torch.zeros(2, 100)], dim=1)
    torch.testing.assert_close(model(audio[:, :300]), model(padded))
    # 1,000 samples need 3 windows of 400, with starts at 0, 300 and 600.
    mean = sum(model(audio[:, start : start + 400]) for start in (0, 300, 600)) / 3
    torch.testing.assert_close(model(audio), mean / mean.norm(dim=1, keepdim=True))


def test_bad_input_is_named():
    model = tiny_model()
    with pytest.raises(ValueError, match="44100 Hz.*800 Hz.*resample"):
        model(noise(1, 400), 44_100)
    with pytest.raises(ValueError, match=r"\(400,\)"):
        model(noise(400))
    with pytest.raises(ValueError, match="at least one sample"):
        model(torch.zeros(1, 0))
    with pytest.raises(ValueError, match="layers is 0.*head_dim is 5"):
        tiny_model(layers=0, head_dim=5)


def test_saved_equals_loaded(tmp_path):
    model, audio = tiny_model(), noise(2, 400)
    model.save_pretrained(tmp_path / "full")
    torch.testing.assert_close(load_embedder(tmp_path / "full")(audio), model(audio), rtol=0, atol=0)
    # In half precision, in a run folder: the values are close, and float32 after loading.
    model.save_pretrained(tmp_path / "run" / "embedder", half=True)
    loaded = load_embedder(tmp_path / "run")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded(audio), model(audio), rtol=0, atol=2e-3)
    assert (tmp_path / "run/embedder/model.safetensors").stat().st_size < 0.7 * (
        tmp_path / "full/model.safetensors"
    ).stat().st_size


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="builtin-heldout"):
        load_embedder(tmp_path / "nothing")
    tiny_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"width": 14}))
    with pytest.raises(ValueError, match="weights do not fit"):
        AudioViT.from_pretrained(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="weights do not fit"):
        AudioViT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"depth": 3}))
    with pytest.raises(ValueError, match="depth"):
        AudioViT.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        AudioViT.from_pretrained(tmp_path)
