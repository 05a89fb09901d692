from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qd.config.embedder import EmbedderTrainConfig
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig

SMALL = AudioViTConfig(clip_seconds=0.5, layers=2, width=24, heads=2, head_dim=8, mlp_width=40, embedding_width=12)


@pytest.fixture
def script(monkeypatch):
    """The experiment as a module, beside which the one lies that it imports."""
    path = Path(__file__).resolve().parents[2] / "experiments" / "embedder_floor.py"
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location("embedder_floor", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_operations_are_those_that_torch_counts(script):
    model = AudioViT(SMALL)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.randn(3, SMALL.clip_samples)).sum().backward()
    assert 3 * script.operations(SMALL) == counter.get_total_flops()


def test_bytes_grow_with_the_layers_and_share_the_weights_among_the_clips(script):
    audio = torch.randn(4, SMALL.clip_samples)
    model = AudioViT(SMALL)
    few, many = (script.bytes_moved(model, audio[:clips], half=False) for clips in (2, 4))
    weights = 3 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert few - many == pytest.approx(weights * (1 / 2 - 1 / 4), rel=1e-2)
    inputs = 2 * 4 * SMALL.frames * SMALL.width * SMALL.layers * 4  # of each layer's two norms, query, key and value, …
    assert inputs < many - weights / 4


def test_the_table_is_consistent(script, monkeypatch):
    config = EmbedderTrainConfig(model=SMALL)
    monkeypatch.setattr(script, "matrix_rate", lambda *_: 2e9)
    monkeypatch.setattr(script, "bandwidth", lambda *_: 1e15)
    table = dict(script.rows(config, 4, torch.device("cpu"), lambda work: 4 * script.operations(SMALL) / 1e9))
    assert table["measured, of what is possible"] == "50%"
    days = 200_000 * 3_840 * script.operations(SMALL) / 1e9 / 86_400
    assert table["200,000 steps of 3,840 clips"] == f"{days:,.1f} days"
