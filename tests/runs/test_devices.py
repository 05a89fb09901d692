"""Device names and precisions."""

from __future__ import annotations

import pytest
import torch

from qd.runs.devices import fast_precision, resolve_device, trainer_device


def test_auto_is_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert trainer_device(resolve_device("cuda:1")) == {"accelerator": "gpu", "devices": [1]}
    with pytest.raises(ValueError, match="cuda:2"):
        resolve_device("cuda:2")


def test_unknown_and_absent_devices_are_errors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'gpu'.*expected auto, cpu, cuda"):
        resolve_device("gpu")
    with pytest.raises(ValueError, match="'cuda' is not on this machine"):
        resolve_device("cuda")
    assert trainer_device(resolve_device("cpu")) == {"accelerator": "cpu", "devices": 1}


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({}, "32-true"), ({"avx512_bf16": True}, "bf16-mixed"), ({"amx_bf16": True, "avx512_bf16": False}, "bf16-mixed")],
)
def test_precision_follows_the_processor(monkeypatch, capabilities: dict[str, bool], precision: str):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_precision(torch.device("cpu")) == precision
