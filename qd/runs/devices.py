"""The device of a model, and its fastest safe precision."""

from __future__ import annotations

from typing import Any

import torch


def resolve_device(name: str = "auto") -> torch.device:
    """Returns the named device.

    Args:
        name: ``auto`` (a CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:<index>`` or ``mps``.

    Raises:
        ValueError: The name is not a device, or this machine does not have the device.
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
    """Returns Lightning's name of the fastest precision that trains safely.

    It is ``bf16-mixed`` if the device multiplies bfloat16 matrices in hardware, else ``32-true``.
    """
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
    return "32-true"


def trainer_device(device: torch.device) -> dict[str, Any]:
    """Returns the ``accelerator`` and ``devices`` arguments of a Lightning Trainer for this one device."""
    if device.type == "cuda":
        return {"accelerator": "gpu", "devices": [device.index or 0]}
    return {"accelerator": device.type, "devices": 1}
