"""Which device runs the model, and in which precision it runs fast."""

from __future__ import annotations

from typing import Any

import torch


def resolve_device(name: str = "auto") -> torch.device:
    """The device named: ``auto`` (a CUDA GPU where there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        ValueError: the name is no device, or the device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name!r}: expected auto, cpu, cuda, cuda:<index> or mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ValueError(f"device={name!r} is not on this machine: use auto or cpu")
    return device


def fast_precision(device: torch.device) -> str:
    """Lightning's name of the fastest precision that trains safely: ``bf16-mixed`` where the device multiplies
    bfloat16 matrices in hardware, else ``32-true``."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
    return "32-true"


def trainer_device(device: torch.device) -> dict[str, Any]:
    """The ``accelerator`` and ``devices`` arguments of a Lightning Trainer that runs on this one device."""
    if device.type == "cuda":
        return {"accelerator": "gpu", "devices": [device.index or 0]}
    return {"accelerator": device.type, "devices": 1}
