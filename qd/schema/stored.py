"""Reads a config dataclass from a stored JSON object, whose keys, types and ranges are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from qd.schema.checker import value_problems

Schema = TypeVar("Schema")


def from_stored(schema: type[Schema], content: Mapping[str, Any], where: str) -> Schema:
    """Returns an instance of a dataclass.

    Args:
        schema: Dataclass whose fields are numbers, texts, tuples of numbers, or dataclasses.
        content: The JSON object.
        where: The file, for the message.

    Raises:
        ValueError: keys are missing or unknown, or a value has a wrong type or is out of its range.
    """
    instance = _read(schema, content, where, "")
    if problems := list(value_problems(instance)):
        raise ValueError(f"{where}: {'; '.join(problems)}")
    return instance


def _read(schema: type[Schema], content: Any, where: str, prefix: str) -> Schema:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: {prefix.rstrip('.') or 'the file'} is {content!r:.60}; expected an object")
    known = {field.name: field for field in fields(schema)}
    required = {name for name, field in known.items() if (field.default, field.default_factory) == (MISSING, MISSING)}
    if different := sorted((content.keys() - known.keys()) | (required - content.keys())):
        raise ValueError(f"{where}: it does not describe this model; fields differ: {', '.join(different)[:200]}")
    kinds = get_type_hints(schema)
    return schema(**{name: _value(kinds[name], value, where, f"{prefix}{name}") for name, value in content.items()})


def _value(kind: Any, value: Any, where: str, path: str) -> Any:
    choices = get_args(kind) if NoneType in get_args(kind) else (kind,)
    for choice in choices:
        if choice is NoneType and value is None:
            return None
        if is_dataclass(choice) and isinstance(value, Mapping):
            return _read(choice, value, where, f"{path}.")
        if get_origin(choice) is tuple and isinstance(value, list) and len(value) == len(get_args(choice)):
            return tuple(_value(inner, item, where, path) for inner, item in zip(get_args(choice), value, strict=True))
        if choice is float and type(value) is int:
            return float(value)
        if isinstance(choice, type) and type(value) is choice:
            return value
    names = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
    raise ValueError(f"{where}: {path} is {value!r:.60}; expected {names}")
