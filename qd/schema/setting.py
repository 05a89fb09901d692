"""Declares settings: dataclass fields whose metadata holds the range, the unit and the help text."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

METADATA = "setting"
"""Key of a :class:`Setting` in the metadata of a dataclass field."""


@dataclass(frozen=True)
class Setting:
    """Everything about a setting except its name, type and default.

    Attributes:
        help: Meaning, in one sentence.
        unit: Unit, such as "s" or "Hz"; empty for a plain number.
        ge: Smallest value.
        gt: Bound that the value exceeds.
        le: Largest value.
        lt: Bound that the value stays below.
        choices: Allowed texts; empty for any text.
        nonempty: Whether a list or a text must have content.
        path: Whether a text names files or folders, in which ``~`` is the user's home folder.
        reason: Why the range is as it is; it ends the error message.

    Bounds and choices of a list hold for each element.
    """

    help: str
    unit: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[str, ...] = ()
    nonempty: bool = False
    path: bool = False
    reason: str = ""

    def contains(self, value: float) -> bool:
        """Whether a number is finite and within the bounds."""
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    @property
    def bounds(self) -> str:
        """The bounds in words: "0 or more and below 1"; empty if there are none."""
        if self.ge is not None and self.ge == self.le:
            return f"{self.ge:g}"
        words = {"ge": "{:g} or more", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}
        return " and ".join(
            text.format(bound) for name, text in words.items() if (bound := getattr(self, name)) is not None
        )

    @property
    def range(self) -> str:
        """The allowed values in symbols, with the unit: "≥ 0, < 1", "> 0 s" or "one of ddp, fsdp"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.ge is not None and self.ge == self.le:
            return f"{self.ge:g}"
        symbols = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
        limits = [
            f"{symbol} {bound:g}" for name, symbol in symbols.items() if (bound := getattr(self, name)) is not None
        ]
        return " ".join(filter(None, [", ".join(limits), self.unit]))


def setting(default: Any, help: str, *, choices: Iterable[str] = (), **limits: Any) -> Any:
    """Declares a field of a config dataclass.

    Args:
        default: Default value; a list or dict is copied for each instance, and a function makes the value.
        help: Meaning, in one sentence.
        choices: Allowed texts.
        limits: Other attributes of :class:`Setting`, by name.
    """
    metadata = {METADATA: Setting(help, choices=tuple(choices), **limits)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def setting_of(schema: type, name: str) -> Setting | None:
    """The :class:`Setting` of a field; a subclass that restates only a default inherits the rest."""
    for parent in schema.__mro__:
        declared = parent.__dict__.get("__dataclass_fields__", {}).get(name)
        if declared is not None and METADATA in declared.metadata:
            return declared.metadata[METADATA]
    return None
