"""Fills a dataclass schema from YAML files and ``key=value`` overrides, and reports all problems together.

The layers, each with only the differences from the one before: the defaults of the schema,
``configs/<kind>/default.yaml``, the overlay (after the one that its key ``extends`` names, if any), the overrides of
the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qd.config.sources import config_folder, read_files, read_overrides, read_tree
from qd.config.train import TrainConfig
from qd.schema.paths import expand_home
from qd.schema.setting import setting_of

__all__ = ["ConfigError", "TrainConfig", "config_folder", "load_config", "to_yaml"]

Schema = TypeVar("Schema")
RENAMED = {"heldout_embedder": "eval_embedder", "batch_rows": "eval_batch_size", "placebo": "shuffle_advantages"}
"""Former names of settings and their new names, so that the config of an older run still loads."""
_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


class ConfigError(ValueError):
    """An invalid configuration; ``problems`` holds one sentence for each thing to fix."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in the configuration:", *(f"  • {text}" for text in self.problems)]))


def load_config(
    schema: type[Schema],
    kind: str,
    name: str | None = None,
    overrides: Sequence[str] = (),
    checks: Iterable[Callable[[Schema], list[str]]] = (),
) -> Schema:
    """Returns an instance of ``schema``, merged from its layers and checked.

    Args:
        schema: A dataclass of dataclasses, lists and plain values, with a default for every field. Its method
            ``problems() -> list[str]``, if any, checks the values.
        kind: Folder under ``configs/``: "train", "embedder", …
        name: Overlay: the name of a file in that folder, without its suffix, or the path of any YAML file.
        overrides: Dotted keys: ``["trainer.max_steps=200", "guidance.negative_prompt=null"]``; the last one wins.
        checks: Additional checks, reported together with the others.

    Raises:
        ConfigError: Names every unknown key, value of a wrong type and bad value, with its layer. If a file cannot be
            read, no bad values are reported, because the file might have changed them.
    """
    problems: list[str] = []
    config = merge_config(schema, kind, name, overrides, problems)
    if hasattr(config, "problems"):
        problems += config.problems()
    problems += [text for check in checks for text in check(config)]
    if problems:
        raise ConfigError(problems)
    return config


def merge_config(
    schema: type[Schema], kind: str, name: str | None, overrides: Sequence[str], problems: list[str]
) -> Schema:
    """Returns an instance of ``schema``, merged from its layers as in :func:`load_config`; values are not checked.

    Unknown keys and values of a wrong type are left out and added to ``problems``.

    Raises:
        ConfigError: A file cannot be read, or an interpolation refers to no setting.
    """
    unread: list[str] = []
    layers = [
        _Layer(where, problems).fitting(schema, tree)
        for where, tree in chain(read_files(config_folder() / kind, name, unread), read_overrides(overrides, problems))
    ]
    if unread:
        raise ConfigError([*unread, *problems])
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), *layers))
    except OmegaConfBaseException as error:  # an interpolation that refers to no setting
        where = f"{error.full_key}: " if error.full_key else ""
        text = str(error).splitlines()[0]
        raise ConfigError([*problems, f"{where}{text}; expected the name of a setting in ${{…}}"]) from error


def stated_settings(schema: type, file: Path) -> dict[str, Any]:
    """Returns the settings that a file states itself, under their present names."""
    return {
        key: value
        for _, tree in read_tree(file, [])
        for key, value in _Layer(str(file), []).fitting(schema, tree).items()
    }


def to_yaml(config: Any) -> str:
    """The YAML text of a config instance; ``load_config`` on this text gives an equal instance."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


@dataclass
class _Layer:
    """Compares one file or override, ``where``, with the schema; adds mismatches to ``problems``."""

    where: str
    problems: list[str]

    def fitting(self, schema: type, tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """The part of ``tree`` that fits ``schema``."""
        kinds = get_type_hints(schema)
        fit: dict[str, Any] = {}
        for key, value in tree.items():
            if key not in kinds and RENAMED.get(key) in kinds:
                key = RENAMED[key]
            path = f"{prefix}{key}"
            if (known := setting_of(schema, str(key))) and known.path:
                value = expand_home(value)
            if key not in kinds:
                self._report(f"unknown key {path!r}{_suggestion(str(key), schema, prefix)}")
                continue
            kind, element = group_type(kinds[key]), element_type(kinds[key])
            if is_dataclass(kind) and isinstance(value, Mapping):
                fit[key] = self.fitting(kind, value, f"{path}.")
            elif is_dataclass(element) and _is_list_of_mappings(value):
                fit[key] = [self.fitting(element, item, f"{path}[{i}].") for i, item in enumerate(value)]
            elif kind is not kinds[key] and value is None:
                fit[key] = None
            elif not is_dataclass(kind) and not is_dataclass(element) and _accepts(schema, key, value):
                fit[key] = value
            else:
                self._report(f"{path} must be {type_name(kind)}, not {value!r}")
        return fit

    def _report(self, problem: str) -> None:
        self.problems.append(f"{self.where}: {problem}")


def _accepts(schema: type, key: str, value: Any) -> bool:
    try:
        OmegaConf.update(_scratch(schema), key, value)
    except OmegaConfBaseException:
        return False
    return True


@cache
def _scratch(schema: type) -> DictConfig:
    """A config to assign values to, for their type check; cached because building it is slow."""
    return OmegaConf.structured(schema)


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def group_type(kind: Any) -> Any:
    """The dataclass in "a dataclass or None"; any other type unchanged."""
    return next((arg for arg in get_args(kind) if NoneType in get_args(kind) and is_dataclass(arg)), kind)


def element_type(kind: Any) -> Any:
    """The type of the elements of a list type; None for any other type."""
    return get_args(kind)[0] if get_origin(kind) is list else None


def type_name(kind: Any) -> str:
    if is_dataclass(kind):
        return f"a group of settings ({', '.join(field.name for field in fields(kind))})"
    if (element := element_type(kind)) is not None:
        return f"a list, each element {type_name(element)}"
    if NoneType in get_args(kind):
        return " or ".join([*(type_name(arg) for arg in get_args(kind) if arg is not NoneType), "null"])
    return _TYPE_NAMES.get(kind, str(kind))


def _suggestion(key: str, schema: type, prefix: str) -> str:
    """A hint: the known key whose dotted path, or last part, is nearest to ``key``."""
    paths = list(_paths(schema))
    by_name = {path.rsplit(".", 1)[-1]: path for path in reversed(paths)} | {path: path for path in paths}
    nearest = get_close_matches(key, by_name, n=1)
    return (
        f"; did you mean {prefix + by_name[nearest[0]]!r}?" if nearest else f"; known here: {', '.join(_names(schema))}"
    )


def _names(schema: type) -> list[str]:
    return [field.name for field in fields(schema)]


def _paths(schema: type, prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(schema).items():
        yield prefix + name
        if is_dataclass(kind := group_type(kind)):
            yield from _paths(kind, f"{prefix}{name}.")
