"""A name for a set of weights: equal weights, equal name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from qd.models.checkpoints.safetensors_files import StoredTensor
from qd.runs.sharding import whole


def fingerprint(module: nn.Module) -> str:
    """Hexadecimal SHA-256 of a module's names, shapes, types and values, wherever they lie.

    Where ranks hold shares of them, all ranks must ask.
    """
    state = module.state_dict()
    return _digest((name, weight, (whole(piece.detach()) for piece in [weight])) for name, weight in state.items())


def stored_fingerprint(tensors: Mapping[str, StoredTensor]) -> str:
    """:func:`fingerprint` of a module with these weights, read piece by piece; however they are cut into files."""
    return _digest((name, tensor, tensor.pieces()) for name, tensor in tensors.items())


def _digest(weights: Iterable[tuple[str, Tensor | StoredTensor, Iterable[Tensor]]]) -> str:
    digest = hashlib.sha256()
    for name, tensor, pieces in sorted(weights, key=lambda weight: weight[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for piece in pieces:
            digest.update(piece.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
