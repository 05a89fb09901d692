"""Checks a config dataclass against the metadata of its fields, and against the rules of its groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from qd.schema.setting import Setting, setting_of


class Settings:
    """Base class of a group of settings; subclasses are dataclasses."""

    def problems(self, prefix: str = "") -> list[str]:
        """One sentence for each bad value of this group and of the groups in it; empty if all are good.

        Args:
            prefix: Dotted path of this group, with a dot at the end: "trainer.".
        """
        return [*value_problems(self, prefix), *rule_problems(self, prefix)]

    def rules(self, prefix: str) -> Iterable[str]:
        """Problems that metadata cannot express: several settings together, files, devices and models."""
        return ()


def value_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """One sentence for each value outside its range or choices, of all nested groups too."""
    for field in fields(config):
        if known := setting_of(type(config), field.name):
            yield from _problems(f"{prefix}{field.name}", getattr(config, field.name), known)
    for path, group in groups(config, prefix):
        yield from value_problems(group, f"{path}.")


def rule_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """The problems that :meth:`Settings.rules` of all nested groups yield, the innermost groups first."""
    for path, group in groups(config, prefix):
        yield from rule_problems(group, f"{path}.")
    if isinstance(config, Settings):
        yield from config.rules(prefix)


def groups(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of the dataclasses that a dataclass holds, alone or in a list."""
    for field in fields(config):
        value, path = getattr(config, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield path, value
        elif isinstance(value, list):
            yield from ((f"{path}[{i}]", item) for i, item in enumerate(value) if is_dataclass(item))


def choice_problems(path: str, value: str, choices: Iterable[str], reason: str = "") -> list[str]:
    """One sentence, with the nearest name, if ``value`` is not among ``choices``."""
    names = list(choices)
    if value in names:
        return []
    nearest = get_close_matches(value, names, n=1)
    return [
        f"{path} is {value!r}; expected one of {', '.join(names)}"
        + (f"; did you mean {nearest[0]!r}?" if nearest else "")
        + (f" ({reason})" if reason else "")
    ]


def _problems(path: str, value: Any, known: Setting) -> Iterator[str]:
    if value is None:
        return
    if known.nonempty and not value:
        yield f"{path} is empty; expected " + (f"some of {', '.join(known.choices)}" if known.choices else "a value")
    for element in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(element, str) and known.choices:
            yield from choice_problems(path, element, known.choices, known.reason)
        elif isinstance(element, (int, float)) and not isinstance(element, bool) and not known.contains(element):
            kind = "an integer" if isinstance(element, int) else "a finite number"
            expected = ", ".join(filter(None, [kind, known.bounds]))
            yield f"{path} is {element}; expected {expected}" + (f" ({known.reason})" if known.reason else "")
