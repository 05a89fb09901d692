"""The models that a merge reads, and the check that they are siblings, which reports all differences at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from qd.models.checkpoints.json_files import read_object
from qd.models.checkpoints.pretrained import hub_folder
from qd.models.checkpoints.resolver import PARTS, PROJECTION, SHIPPED, hub_name, resolve_model, weight_files
from qd.models.checkpoints.safetensors_files import Header, StoredTensor, read_header
from qd.schema.paths import home_path

RECIPE = "recipe.yaml"

FROZEN = ("text_encoder/", "codec/", "text_encoder.", "audio_encoder.")
"""Prefixes of the tensors that training never changes, in the built-in layout and in the library's."""

_COPIED = ("*.json", "*.model", "*.txt")  # files next to the weights: configs, tokenizer, vocabulary
_MEASURED = ("metrics.json",)  # measurements of one model do not apply to a merge
_BOOKKEEPING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache")
_STATE = ("padding", "truncation", "version")  # keys of a tokenizer.json that describe its last use, not its function


@dataclass(frozen=True)
class Source:
    """A checkpoint to merge.

    Attributes:
        name: Name as the user wrote it.
        weight: Factor in the sum.
        folder: Folder of the weights, in the built-in layout or in the library's.
        recipe: Contents of its ``recipe.yaml``, if there is one.
    """

    name: str
    weight: float
    folder: Path
    recipe: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """Name for the recipe: the step folder for a run or folder, but the plain name for a shipped or hub model."""
        own = self.name not in SHIPPED and home_path(self.name).is_dir()
        return str(self.folder) if own else self.name

    @property
    def builtin(self) -> bool:
        return (self.folder / "decoder").is_dir()

    @property
    def models(self) -> list[str]:
        """Relative folders with a config and weights: one in the library's layout, three in the built-in one."""
        return list(PARTS) if self.builtin else ["."]

    @cached_property
    def headers(self) -> dict[str, Header]:
        """Header of each weight file, by its relative path."""
        files = [file for model in self.models for file in weight_files(self.folder / model)]
        files += [file for file in [self.folder / PROJECTION] if self.builtin and file.is_file()]
        return {str(file.relative_to(self.folder)): read_header(file) for file in files}

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by :func:`qualified` names, which do not depend on the division of the weights into files."""
        return {
            qualified(file, name): tensor
            for file, header in self.headers.items()
            for name, tensor in header.tensors.items()
        }

    @property
    def other_files(self) -> list[Path]:
        """The other files of a checkpoint: configs, tokenizer and indices, relative to the folder."""
        folders = [self.folder / model for model in dict.fromkeys([".", *self.models])]
        files = [file for folder in folders for pattern in _COPIED for file in sorted(folder.glob(pattern))]
        return [file.relative_to(self.folder) for file in files if file.name not in _MEASURED]


def qualified(file: str, name: str) -> str:
    """Returns the name of a tensor in the whole checkpoint.

    It is ``decoder/lm_heads.0.weight`` for a tensor of ``decoder/model.safetensors``, ``projection/weight`` for one of
    ``projection.safetensors``, and the tensor's own name in the library's layout.
    """
    if file == PROJECTION:
        return f"{Path(PROJECTION).stem}/{name}"
    folder = Path(file).parent
    return name if folder == Path() else f"{folder.as_posix()}/{name}"


def open_source(name: str, weight: float) -> Source:
    """Opens a model by any name that ``resolve_model`` accepts; a hub model is downloaded unless it is cached.

    Raises:
        ValueError: the name is unknown, the checkpoint is incomplete, or the hub cannot be reached.
    """
    source = resolve_model(name)
    if not Path(source).is_dir():
        source = resolve_model(hub_folder(*hub_name(source), ["*.safetensors", *_COPIED]))
    return Source(str(name), weight, Path(source), _recipe(Path(source) / RECIPE))


def _recipe(file: Path) -> Mapping[str, Any] | None:
    if not file.is_file():
        return None
    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"'{file}' is not valid YAML ({reason}); correct or remove it") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"'{file}' holds a {type(recipe).__name__}; expected `key: value` lines: correct or remove it")
    return recipe


def merge_problems(sources: Sequence[Source]) -> list[str]:
    """Returns why the sources cannot be merged: one sentence per difference from the first one."""
    first = sources[0]
    problems = []
    for other in sources[1:]:
        if first.builtin != other.builtin:
            kinds = ["the built-in layout" if source.builtin else "the library's" for source in (first, other)]
            problems.append(f"layout: {kinds[0]} in {first.name}, {kinds[1]} in {other.name}")
            continue
        problems += _config_differences(first, other)
        problems += _tokenizer_differences(first, other)
        problems += _tensor_differences(first, other)
    if any(source.builtin != first.builtin for source in sources):
        return problems
    return [*problems, *_missing_tensors(sources)]


def shared_names(sources: Sequence[Source]) -> list[str]:
    """Returns the names of the tensors that all sources have; among siblings, the others are copies of tied weights."""
    return [name for name in sources[0].tensors if all(name in source.tensors for source in sources)]


def equal(first: StoredTensor, second: StoredTensor, dtype: torch.dtype) -> bool:
    """Returns whether two tensors have the same shape and, converted to ``dtype``, the same values."""
    if first.shape != second.shape:
        return False
    pairs = zip(first.pieces(), second.pieces(), strict=True)
    return all(torch.equal(a.to(dtype), b.to(dtype)) for a, b in pairs)


def _config_differences(first: Source, other: Source) -> Iterator[str]:
    for model in first.models:
        file = Path(model) / "config.json"
        raw = [read_object(source.folder / file) for source in (first, other)]
        before, after = (dict(_leaves(config)) for config in raw)
        if before != after:  # another version of the library may have left out default values
            before, after = (dict(_leaves(_completed(config))) for config in raw)
        for key in sorted(before | after):
            if before.get(key) != after.get(key):
                values = f"{before.get(key)!r} in {first.name}, {after.get(key)!r} in {other.name}"
                yield f"{file.as_posix()}: {key} is {values}"


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config with the library's defaults filled in, if the library knows its type and accepts it."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return config
    try:
        return CONFIG_MAPPING[kind].from_dict(config).to_dict()
    except Exception:  # the library's validation raises many types; the config is then compared as it is
        return config


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and values of a config, without the keys about how the model was saved."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif key not in _BOOKKEEPING:
            yield f"{prefix}{key}", value


def _tokenizer_differences(first: Source, other: Source) -> Iterator[str]:
    folder = "text_encoder" if first.builtin else "."
    for name in ("tokenizer.json", "spiece.model"):
        files = [source.folder / folder / name for source in (first, other)]
        if all(file.is_file() for file in files) and _vocabulary(files[0]) != _vocabulary(files[1]):
            yield f"{(Path(folder) / name).as_posix()}: not the same in {first.name} and {other.name}"


def _vocabulary(file: Path) -> Any:
    if file.suffix != ".json":
        return file.read_bytes()
    return {key: value for key, value in read_object(file).items() if key not in _STATE}


def _tensor_differences(first: Source, other: Source) -> Iterator[str]:
    for name in shared_names([first, other]):
        a, b = first.tensors[name], other.tensors[name]
        frozen, floats = name.startswith(FROZEN), a.dtype.is_floating_point and b.dtype.is_floating_point
        if a.shape != b.shape:
            yield f"{name}: shape {a.shape} in {first.name}, {b.shape} in {other.name}"
        elif a.dtype != b.dtype and not floats:
            yield f"{name}: {a.dtype} in {first.name}, {b.dtype} in {other.name}"
        # A model saved in half precision is still a sibling: frozen values are compared in the coarser type.
        elif (frozen or not floats) and not equal(a, b, min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)):
            kind = "a frozen part" if frozen else str(a.dtype)
            yield f"{name}: different values in {first.name} and {other.name}, and {kind} is not averaged"


def _missing_tensors(sources: Sequence[Source]) -> Iterator[str]:
    shared = dict.fromkeys(shared_names(sources))
    for name in dict.fromkeys(name for source in sources for name in source.tensors):
        if name in shared:
            continue
        present = [source for source in sources if name in source.tensors]
        if not all(_tied(source, name, shared) for source in present):
            absent = [source for source in sources if source not in present]
            yield f"{name}: in {_names(present)}, not in {_names(absent)}"


def _tied(source: Source, name: str, shared: Iterable[str]) -> bool:
    """Returns whether a tensor is a copy of one that all sources have.

    Safetensors files store tied weights under one name, and the library ties them again when it loads them. A tensor
    with a single repeated value, such as an initial bias, does not prove a tie.
    """
    tensor = source.tensors[name]
    if tensor.elements == 0 or all(piece.min() == piece.max() for piece in tensor.pieces()):
        return False
    candidates = (source.tensors[other] for other in shared)
    return any(other.dtype == tensor.dtype and equal(tensor, other, tensor.dtype) for other in candidates)


def _names(sources: Iterable[Source]) -> str:
    return ", ".join(source.name for source in sources)
