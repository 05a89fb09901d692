"""Writes the weighted sum of models from files to files, with one piece of one tensor per model in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from qd.models.checkpoints.config_dtype import write_dtype
from qd.models.checkpoints.resolver import INDEX, WEIGHTS, weight_files
from qd.models.checkpoints.safetensors_files import StoredTensor, read_header, write_safetensors
from qd.models.merging.sources import FROZEN, Source, equal, qualified, shared_names

SAMPLING = "generation_config.json"


def write_merge(sources: Sequence[Source], folder: Path) -> None:
    """Writes Σ w_i · θ_i with the layout and files of the first source; copies a source if only its weight is not 0.

    Args:
        sources: Models without ``merge_problems``.
        folder: Output folder.

    Raises:
        ValueError: a merged value is not finite; the message names the tensor, and the source if the source has it.
    """
    weighted = [source for source in sources if source.weight != 0]
    is_copy = len(weighted) == 1
    model = weighted[0] if is_copy else sources[0]
    for file in [*model.other_files, *(map(Path, model.headers) if is_copy else ())]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.folder / file, folder / file)
    if not is_copy:
        _write_sampling(sources, folder)
        _write_weights(sources, folder)
        parts = [folder / part for part in model.models]
        dtype = _finest_stored(parts)  # one type for all parts: the library cannot combine different ones
        for part in parts:
            write_dtype(part, dtype)
            _correct_index(part)


def _write_sampling(sources: Sequence[Source], folder: Path) -> None:
    """Copies the sampling settings of the first model that was trained here.

    The settings of an untrained base would apply guidance, which training has made unnecessary.
    """
    trained = next((source for source in sources if source.recipe), None)
    if trained is None:
        return
    for file in trained.other_files:
        if file.name == SAMPLING:
            shutil.copyfile(trained.folder / file, folder / file)


def merged_dtype(tensors: Sequence[StoredTensor]) -> torch.dtype:
    """Returns the finest type of the tensors: half precision only if all have the same half precision."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def weighted_sum(tensors: Sequence[StoredTensor], weights: Sequence[float]) -> Iterator[Tensor]:
    """Yields flat pieces of Σ w_i · x_i in ``merged_dtype``, computed in float32 (float64 if a tensor is stored so)."""
    dtype = merged_dtype(tensors)
    arithmetic = torch.promote_types(dtype, torch.float32)
    for first, *others in zip(*(tensor.pieces() for tensor in tensors), strict=True):
        total = first.to(arithmetic) * weights[0]
        for piece, weight in zip(others, weights[1:], strict=True):
            total.add_(piece, alpha=weight)
        yield total.to(dtype)


def copied(tensors: Sequence[StoredTensor]) -> Iterator[Tensor]:
    """Yields flat pieces of equal tensors, read from the first one with the finest type."""
    dtype = merged_dtype(tensors)
    source = next((tensor for tensor in tensors if tensor.dtype == dtype), tensors[0])
    for piece in source.pieces():
        yield piece.to(dtype)


def _write_weights(sources: Sequence[Source], folder: Path) -> None:
    """Writes the weights, divided into files like the first source; tied weights keep only the name that all have."""
    shared = set(shared_names(sources))
    for file, header in sources[0].headers.items():
        names = {name: qualified(file, name) for name in header.tensors if qualified(file, name) in shared}
        _write_file(sources, folder / file, names, header.metadata)


def _write_file(sources: Sequence[Source], file: Path, names: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    tensors = {name: [source.tensors[full] for source in sources] for name, full in names.items()}
    kinds = {name: (merged_dtype(stored), stored[0].shape) for name, stored in tensors.items()}
    write_safetensors(file, kinds, lambda name: merged_pieces(sources, names[name]), metadata)


def merged_pieces(sources: Sequence[Source], name: str) -> Iterator[Tensor]:
    """Yields flat pieces of Σ w_i · θ_i of one tensor; a frozen tensor, or one that is equal in all sources, is copied.

    Args:
        sources: Models without ``merge_problems``.
        name: Name from :func:`~qd.models.merging.sources.qualified`.

    Raises:
        ValueError: a merged value is not finite.
    """
    tensors = [source.tensors[name] for source in sources]
    if name.startswith(FROZEN) or all(equal(tensors[0], other, merged_dtype(tensors)) for other in tensors[1:]):
        yield from copied(tensors)
        return
    for piece in weighted_sum(tensors, [source.weight for source in sources]):
        if not all(end.isfinite() for end in piece.aminmax()):
            raise ValueError(f"{name}: {_cause(sources, name, piece.dtype)}")
        yield piece


def _cause(sources: Sequence[Source], name: str, dtype: torch.dtype) -> str:
    """Returns why a merged value is not finite."""
    broken = [
        source.name for source in sources if not all(piece.isfinite().all() for piece in source.tensors[name].pieces())
    ]
    if broken:
        return f"not finite in {', '.join(broken)}; merge an earlier step of that run"
    return f"the sum is too large for {dtype}; use weights nearer to 0 … 1"


def _finest_stored(models: Sequence[Path]) -> torch.dtype:
    """Returns the finest floating-point type in the models' files."""
    headers = [read_header(file) for model in models for file in weight_files(model)]
    stored = [tensor.dtype for header in headers for tensor in header.tensors.values()]
    return reduce(torch.promote_types, (dtype for dtype in stored if dtype.is_floating_point))


def _correct_index(model: Path) -> None:
    """Rewrites the index of shards, if there is one: some names of tied weights may be gone."""
    index = model / f"{WEIGHTS}{INDEX}"
    if not index.is_file():
        return
    headers = {file.name: read_header(file).tensors for file in weight_files(model)}
    size = sum(tensor.bytes for tensors in headers.values() for tensor in tensors.values())
    shards = {name: file for file, tensors in headers.items() for name in tensors}
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": dict(sorted(shards.items()))}, indent=2)
    index.write_text(text + "\n", encoding="utf-8")
