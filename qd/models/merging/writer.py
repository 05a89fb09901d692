"""The weighted sum, from files to files: of each model one piece of one tensor is in memory at a time."""

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
    """Writes Σ w_i · θ_i with the first source's layout and files; or copies a source, where its weight alone is not 0.

    Args:
        sources: without ``differences``.
        folder: to be made.

    Raises:
        ValueError: a merged number is not finite; names the tensor, and the source if it was its.
    """
    weighed = [source for source in sources if source.weight != 0]
    whole = len(weighed) == 1
    model = weighed[0] if whole else sources[0]
    for file in [*model.other_files, *(map(Path, model.headers) if whole else ())]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.folder / file, folder / file)
    if not whole:
        _write_sampling(sources, folder)
        _write_weights(sources, folder)
        places = [folder / place for place in model.models]
        dtype = _finest_stored(places)  # of all: parts in different types do not go together
        for place in places:
            write_dtype(place, dtype)
            _correct_index(place)


def _write_sampling(sources: Sequence[Source], folder: Path) -> None:
    """How plain transformers samples the merge: as the first of the models that was trained here, whose file says so.
    That of an untrained base would sample with the guidance that the training has made needless."""
    trained = next((source for source in sources if source.recipe), None)
    if trained is None:
        return
    for file in trained.other_files:
        if file.name == SAMPLING:
            shutil.copyfile(trained.folder / file, folder / file)


def merged_dtype(tensors: Sequence[StoredTensor]) -> torch.dtype:
    """The finest type among them: half precision only where all are of one half precision."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def weighted_sum(tensors: Sequence[StoredTensor], weights: Sequence[float]) -> Iterator[Tensor]:
    """Flat pieces of Σ w_i · x_i, in float32 (float64 where a tensor is stored so), then of ``merged_dtype``."""
    dtype = merged_dtype(tensors)
    arithmetic = torch.promote_types(dtype, torch.float32)
    for first, *others in zip(*(tensor.pieces() for tensor in tensors), strict=True):
        total = first.to(arithmetic) * weights[0]
        for piece, weight in zip(others, weights[1:], strict=True):
            total.add_(piece, alpha=weight)
        yield total.to(dtype)


def copied(tensors: Sequence[StoredTensor]) -> Iterator[Tensor]:
    """Flat pieces of tensors that are the same, from the first that has the finest type."""
    dtype = merged_dtype(tensors)
    source = next((tensor for tensor in tensors if tensor.dtype == dtype), tensors[0])
    for piece in source.pieces():
        yield piece.to(dtype)


def _write_weights(sources: Sequence[Source], folder: Path) -> None:
    """The weight files, cut as the first source's are; of tied weights only the name that all sources have."""
    shared = set(shared_names(sources))
    for file, header in sources[0].headers.items():
        names = {name: qualified(file, name) for name in header.tensors if qualified(file, name) in shared}
        _write_file(sources, folder / file, names, header.metadata)


def _write_file(sources: Sequence[Source], file: Path, names: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    tensors = {name: [source.tensors[full] for source in sources] for name, full in names.items()}
    kinds = {name: (merged_dtype(stored), stored[0].shape) for name, stored in tensors.items()}
    write_safetensors(file, kinds, lambda name: merged(sources, names[name]), metadata)


def merged(sources: Sequence[Source], name: str) -> Iterator[Tensor]:
    """Flat pieces of Σ w_i · θ_i of one tensor, by its :func:`~qd.models.merging.sources.qualified` name; copies of
    what is frozen, or the same in all. Raises ``ValueError`` where a number of them is not finite."""
    tensors = [source.tensors[name] for source in sources]
    if name.startswith(FROZEN) or all(equal(tensors[0], other, merged_dtype(tensors)) for other in tensors[1:]):
        yield from copied(tensors)
        return
    for piece in weighted_sum(tensors, [source.weight for source in sources]):
        if not all(end.isfinite() for end in piece.aminmax()):
            raise ValueError(f"{name}: {_cause(sources, name, piece.dtype)}")
        yield piece


def _cause(sources: Sequence[Source], name: str, dtype: torch.dtype) -> str:
    """Why a merged number is not finite, in words."""
    broken = [
        source.name for source in sources if not all(piece.isfinite().all() for piece in source.tensors[name].pieces())
    ]
    if broken:
        return f"not finite in {', '.join(broken)}; merge an earlier step of that run"
    return f"the sum is too large for {dtype}; take weights nearer to 0 … 1"


def _finest_stored(models: Sequence[Path]) -> torch.dtype:
    """The finest type of the merged numbers."""
    headers = [read_header(file) for model in models for file in weight_files(model)]
    stored = [tensor.dtype for header in headers for tensor in header.tensors.values()]
    return reduce(torch.promote_types, (dtype for dtype in stored if dtype.is_floating_point))


def _correct_index(model: Path) -> None:
    """Writes which tensor is in which shard, where there is an index: names of tied weights may have gone."""
    index = model / f"{WEIGHTS}{INDEX}"
    if not index.is_file():
        return
    headers = {file.name: read_header(file).tensors for file in weight_files(model)}
    size = sum(tensor.bytes for tensors in headers.values() for tensor in tensors.values())
    places = {name: file for file, tensors in headers.items() for name in tensors}
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}, indent=2)
    index.write_text(text + "\n", encoding="utf-8")
