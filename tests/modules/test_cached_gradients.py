"""Cached gradients against direct ones, and their memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qd.audio.chunks import map_chunks
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.modules.cached_gradients import embed_with_cached_gradients
from qd.objectives.triplet import semi_hard_triplet

SHAPE = {"sample_rate": 800, "clip_seconds": 0.5, "n_fft": 64, "window_length": 64, "hop_length": 20, "n_mels": 8}
SHAPE |= {"layers": 3, "width": 24, "heads": 2, "head_dim": 8, "mlp_width": 32, "embedding_width": 6}


def model() -> AudioViT:
    torch.manual_seed(0)
    return AudioViT(AudioViTConfig(**SHAPE)).double()


def noise(clips: int) -> torch.Tensor:
    return torch.randn(clips, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_and_gradients(model: AudioViT, audio: torch.Tensor, chunk_clips: int | None):
    model.zero_grad()
    embeddings = embed_with_cached_gradients(model, audio, chunk_clips)
    loss = semi_hard_triplet(embeddings, torch.arange(len(audio)) // 2, margin=0.5).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made under it that are still alive, and the largest such number."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in self.live:
                storage = tensor.untyped_storage()
                self.live[key] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, key)
        self.most = max(self.most, sum(self.live.values()))
        return result


@pytest.mark.parametrize("chunk_clips", [1, 5, 6, 12, 99])
def test_loss_and_gradients_equal_the_direct_ones(chunk_clips: int):
    embedder, audio = model(), noise(12)
    loss, expected = loss_and_gradients(embedder, audio, None)
    cached_loss, cached = loss_and_gradients(embedder, audio, chunk_clips)
    assert loss > 0
    torch.testing.assert_close(cached_loss, loss, rtol=1e-9, atol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            cached[name], gradient, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: name + text
        )


def test_gradients_equal_those_of_the_published_algorithm():
    """GradCache by hand: embed without a graph, compute ∂L/∂e, then backpropagate Σ e · ∂L/∂e of each chunk."""
    embedder, audio = model(), noise(12)
    with torch.no_grad():
        embeddings = torch.cat([embedder(chunk) for chunk in audio.split(4)])
    embeddings.requires_grad_()
    semi_hard_triplet(embeddings, torch.arange(12) // 2, margin=0.5).loss.backward()
    for chunk, gradient in zip(audio.split(4), embeddings.grad.split(4), strict=True):
        (embedder(chunk) * gradient).sum().backward()
    by_hand = {name: parameter.grad.clone() for name, parameter in embedder.named_parameters()}
    _, cached = loss_and_gradients(embedder, audio, 4)
    for name, gradient in by_hand.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-6, atol=1e-9)


def test_the_model_sees_the_same_clips_twice_and_one_chunk_at_once():
    chunks = []
    embedder = model()
    embedder.register_forward_pre_hook(lambda module, arguments: chunks.append(arguments[0]))
    audio = noise(10)
    loss_and_gradients(embedder, audio, 4)
    assert [len(clips) for clips in chunks] == [4, 4, 2, 2, 4, 4]
    assert torch.equal(torch.cat(chunks[:3]), audio) and torch.equal(torch.cat(chunks[:2:-1]), audio)


def test_memory_holds_one_chunk():
    embedder, audio = model(), noise(32)
    most = {}
    for chunk_clips in (None, 8, 4):
        with LiveBytes() as live:
            loss_and_gradients(embedder, audio, chunk_clips)
        most[chunk_clips] = live.most
    assert most[8] < most[None] / 3
    assert most[4] < most[8] / 1.6


def test_the_gradients_of_chunks_are_not_added_up_in_bfloat16():
    embedder, audio = model().float(), noise(24).float()
    weights = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))

    def gradient(chunk_clips: int | None, enabled: bool = True) -> torch.Tensor:
        embedder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            embeddings = embed_with_cached_gradients(embedder, audio, chunk_clips)
        assert embeddings.dtype == torch.float32
        (embeddings * weights).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in embedder.parameters()])

    exact = gradient(None, enabled=False)
    direct, cached = ((gradient(chunk) - exact).norm() / exact.norm() for chunk in (None, 1))
    assert 0 < cached < 1.5 * direct < 0.05


def test_without_gradient_clips_are_embedded_once():
    sizes = []
    embedder = model()
    embedder.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    with torch.no_grad():
        embedded = embed_with_cached_gradients(embedder, noise(10), 4)
    assert sizes == [4, 4, 2]
    torch.testing.assert_close(embedded, embedder(noise(10)))


def test_chunks_are_joined_in_order():
    rows = torch.arange(7.0)[:, None]
    for size in (None, 1, 3, 7, 8):
        assert torch.equal(map_chunks(lambda part: 2 * part, rows, size), 2 * rows)
