"""Compares a model's config with its weights before memory is allocated for it, because either may be hostile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from qd.models.checkpoints.resolver import weight_files

LARGEST_NUMBER = 2**20
"""Largest whole number in the config of a model of the transformers library; the largest real ones are vocabularies."""
LARGEST_COUNT = 512
"""Largest number of layers, heads or codebooks."""
LARGEST_TABLE = 2**28
"""Largest number of elements that the library computes instead of reading: a gigabyte in float32."""
_COUNTS = re.compile(r"(^|_)(layers|depths?|heads|codebooks|blocks|stages)$")


def check_size(kind: type[PreTrainedModel], source: str, **options: Any) -> None:
    """Compares the config of a model of the transformers library with its weights, as far as they are on this machine.

    Args:
        kind: Class of the model.
        source: Folder or hub name.
        options: Options of ``from_pretrained``.

    Raises:
        ValueError: the config has absurd numbers, or describes other shapes than the weights have.
    """
    known = {key: options[key] for key in ("revision", "local_files_only") if key in options}
    config, _ = PreTrainedConfig.get_config_dict(source, **known)
    if problem := number_problem(config):
        raise ValueError(problem)
    files = weight_files(Path(source)) if Path(source).is_dir() else []
    if not all(file.is_file() for file in files):
        return  # the library says what is missing
    with torch.device("meta"):
        expected = shapes(kind(kind.config_class.from_pretrained(source, **known)))
    actual = {name: shape for file in files for name, shape in stored_shapes(file).items()}
    both = expected.keys() & actual.keys()  # others are renamed by the library, or missing, which it reports
    if problem := shape_problem(*({name: table[name] for name in both} for table in (expected, actual))):
        raise ValueError(f"its weights do not fit config.json: {problem}")


def number_problem(config: Mapping[str, Any]) -> str | None:
    """Returns the first absurd number in a model's ``config.json``; None if there is none."""
    for path, value in _numbers(config):
        count = bool(_COUNTS.search(re.sub(r"\[\d+\]$", "", path)))
        limit = LARGEST_COUNT if count else LARGEST_NUMBER
        if not -limit <= value <= limit or count and value < 1:
            return f"config.json: {path} is {value}; expected {'1 to ' if count else 'at most '}{limit:,}"
    for path, group in _groups(config):
        positions, width = (group.get(key) for key in ("max_position_embeddings", "hidden_size"))
        if isinstance(positions, int) and isinstance(width, int) and positions * width > LARGEST_TABLE:
            return (
                f"config.json: {path}max_position_embeddings is {positions} and {path}hidden_size is {width}; expected "
                f"a product of at most {LARGEST_TABLE:,}"
            )
    return None


def load_checked(build: Callable[[], nn.Module], file: Path, part: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Builds a module and loads its weights in float32.

    Args:
        build: Builds the module; it is first called without memory for the weights.
        file: Its safetensors file.
        part: Returns the part of the module that the file holds.

    Raises:
        ValueError: the file is damaged, or its tensors have other names or shapes than those of the module.
    """
    try:
        with torch.device("meta"):
            expected = shapes(part(build()))
        actual = stored_shapes(file)
        if problem := shape_problem(expected, actual):
            raise ValueError(f"{file}: weights do not fit config.json: {problem}")
        module = build()
        part(module).load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    except (RuntimeError, ArithmeticError, TypeError, MemoryError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file}: weights do not fit config.json: {reason}") from None
    return module


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a module's weights by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes in a file by name; only its header is read."""
    with safe_open(file, framework="pt") as stored:
        return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118


def shape_problem(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]]) -> str | None:
    """Returns the first difference between the shapes of a module and those of a file."""
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is not a weight of this model"
        if expected[name] != actual[name]:
            return f"{name} has the shape {list(actual[name])}; expected {list(expected[name])}"
    return None


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers in nested objects and lists, with their paths."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, f"{path}[{index}]")


def _groups(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Objects in nested objects, with the prefix of their keys."""
    if isinstance(value, Mapping):
        yield path, value
        for key, inner in value.items():
            yield from _groups(inner, f"{path}{key}.")
