"""Fingerprints of weights: equal weights have equal fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from qd.models.checkpoints.safetensors_files import StoredTensor
from qd.runs.sharding import whole


def fingerprint(module: nn.Module) -> str:
    """Returns the hexadecimal SHA-256 of a module's names, shapes, types and values, on any device.

    If the weights are sharded over ranks, all ranks must call this function.
    """
    state = module.state_dict()
    return _digest((name, weight, (whole(piece.detach()) for piece in [weight])) for name, weight in state.items())


def stored_fingerprint(tensors: Mapping[str, StoredTensor]) -> str:
    """Returns the :func:`fingerprint` of a module with these weights.

    The weights are read piece by piece, and their division into files has no effect.
    """
    return _digest((name, tensor, tensor.pieces()) for name, tensor in tensors.items())


def _digest(weights: Iterable[tuple[str, Tensor | StoredTensor, Iterable[Tensor]]]) -> str:
    digest = hashlib.sha256()
    for name, tensor, pieces in sorted(weights, key=lambda weight: weight[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for piece in pieces:
            digest.update(piece.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
