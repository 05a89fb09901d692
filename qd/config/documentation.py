"""Documents configs from the metadata of their fields: as commented YAML, as tables and as help texts of options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

import yaml
from omegaconf import OmegaConf

from qd.config.loading import element_type, group_type, type_name
from qd.schema.setting import Setting, setting_of

WIDTH = 100
"""Width of a line of comments."""


@dataclass(frozen=True)
class Entry:
    """A setting or a group of settings.

    Attributes:
        name: Name of the field.
        kind: Its type; for an optional group the type of the group.
        value: Value in the config.
        setting: Metadata; None for a group that is always present.
    """

    name: str
    kind: Any
    value: Any
    setting: Setting | None

    @property
    def text(self) -> str:
        """The help text, with the range in brackets; of a group the first line of its docstring."""
        if self.setting is None:
            return self.kind.__doc__.splitlines()[0].replace("``", "`")
        return self.setting.help + (f" [{self.setting.range}]" if self.setting.range else "")


def entries(config: Any) -> list[Entry]:
    """The settings and groups of a config, in the order of its fields."""
    kinds = get_type_hints(type(config))
    return [
        Entry(f.name, group_type(kinds[f.name]), getattr(config, f.name), setting_of(type(config), f.name))
        for f in fields(config)
    ]


def documented_yaml(config: Any) -> str:
    """The YAML text of a config, with the help text and the range of each setting above its line."""
    return "\n".join(_lines(config)) + "\n"


def option_help(schema: type, key: str) -> str:
    """The help text of a command-line option that sets a setting, by its dotted key."""
    config = schema()
    *path, name = key.split(".")
    for group in path:
        config = getattr(config, group)
    entry = next(entry for entry in entries(config) if entry.name == name)
    if entry.value is None or entry.value is False or entry.value == []:
        return entry.text
    return f"{entry.text} (default: {entry.value})"


def markdown_tables(title: str, schema: type) -> str:
    """Tables of all settings of a schema, one for each group."""
    return "\n".join([f"## {title}", "", *_tables(schema(), "")])


def _lines(config: Any) -> Iterator[str]:
    for entry in entries(config):
        yield from textwrap.wrap(entry.text, WIDTH, initial_indent="# ", subsequent_indent="#   ")
        element = element_type(entry.kind)
        if is_dataclass(entry.value):
            yield f"{entry.name}:"
            yield from textwrap.indent("\n".join(_lines(entry.value)), "  ").splitlines()
            yield ""
            continue
        if is_dataclass(element):
            yield from _commented(f"each element of {entry.name}:", element)
        yield from _yaml(entry)
        if is_dataclass(entry.kind):
            yield from _commented(f"{entry.name}, instead of null:", entry.kind)


def _commented(title: str, schema: type) -> Iterator[str]:
    """The documented settings of a group that the config does not hold, as comments."""
    yield f"# {title}"
    yield from (f"#   {line}".rstrip() for line in _lines(schema()))


def _yaml(entry: Entry) -> list[str]:
    """The YAML lines of one setting; a list of numbers or names takes one line."""
    values = _changed(entry.value)
    if values and isinstance(values, list) and all(map(_is_simple, values)):
        return [f"{entry.name}: [{', '.join(map(str, values))}]"]
    return OmegaConf.to_yaml(OmegaConf.create({entry.name: values})).splitlines()


def _changed(value: Any) -> Any:
    """A group as a dict of the settings that differ from their defaults; a tuple as a list; other values unchanged."""
    if isinstance(value, (list, tuple)):
        return [_changed(element) for element in value]
    if not is_dataclass(value):
        return value
    defaults = type(value)()
    return {
        entry.name: _changed(entry.value) for entry in entries(value) if entry.value != getattr(defaults, entry.name)
    }


def _is_simple(value: Any) -> bool:
    return isinstance(value, (int, float)) or (re.fullmatch(r"[\w.-]+", str(value)) and yaml.safe_load(value) == value)


def _tables(config: Any, prefix: str) -> Iterator[str]:
    yield from ("| Setting | Default | Values | Meaning |", "| --- | --- | --- | --- |")
    nested = []
    for entry in entries(config):
        element = element_type(entry.kind)
        if is_dataclass(entry.kind):
            nested.append((f"{prefix}{entry.name}", entry.kind() if entry.value is None else entry.value))
        elif is_dataclass(element):
            nested.append((f"{prefix}{entry.name}[]", element()))
        if entry.setting is not None:
            yield _row(entry, prefix)
    yield ""
    for path, group in nested:
        yield from (f"### `{path}`", "", type(group).__doc__.splitlines()[0].replace("``", "`"), "")
        yield from _tables(group, f"{path}.")


def _row(entry: Entry, prefix: str) -> str:
    values = entry.setting.range or type_name(entry.kind)
    if is_dataclass(entry.kind):
        values = "a group"
    elif is_dataclass(element_type(entry.kind)):
        values = "a list of groups"
    elif isinstance(entry.value, dict):
        values = "key: value pairs"
    default = yaml.safe_dump([_changed(entry.value)], default_flow_style=True, allow_unicode=True, width=10**6).strip()
    cells = [f"`{prefix}{entry.name}`", f"`{default[1:-1]}`", values, entry.setting.help]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
