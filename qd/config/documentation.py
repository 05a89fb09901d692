"""Documents configs from the metadata of their fields: as commented YAML, as tables and as help texts of options."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from qd.config.loading import element_type, group_type, type_name
from qd.config.schema.setting import Setting, setting_of

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
    values = [_plain(value) for value in entry.value] if isinstance(entry.value, (list, tuple)) else entry.value
    return OmegaConf.to_yaml(OmegaConf.create({entry.name: values})).splitlines()


def _plain(value: Any) -> Any:
    """A group as a dict, for YAML; any other value unchanged."""
    return {entry.name: _plain(entry.value) for entry in entries(value)} if is_dataclass(value) else value


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
    kind = "a group" if is_dataclass(entry.kind) else "a list of groups"
    named = is_dataclass(entry.kind) or is_dataclass(element_type(entry.kind))
    values = kind if named else entry.setting.range or type_name(entry.kind)
    default = " ".join(line.strip() for line in _yaml(entry)).partition(":")[2].strip()
    cells = [f"`{prefix}{entry.name}`", f"`{default or chr(39) * 2}`", values, entry.setting.help]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
