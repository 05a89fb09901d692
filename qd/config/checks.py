"""Checks that config schemas share. Each gives no problem, or one sentence with the value and what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path

import torch

from qd.data.prompt_files import PromptFile
from qd.runs.devices import resolve_device


def bounded(path: str, value: float, low: float = -math.inf) -> list[str]:
    """A finite number that is ``low`` or more; NaN fails too."""
    if math.isfinite(value) and value >= low:
        return []
    return [f"{path} is {value}; expected a finite number" + (f", {low} or more" if math.isfinite(low) else "")]


def positive(path: str, value: float) -> list[str]:
    """A finite number above 0."""
    return [] if 0 < value < math.inf else [f"{path} is {value}; expected a finite number above 0"]


def fraction(path: str, value: float) -> list[str]:
    """A number in [0, 1)."""
    return [] if 0 <= value < 1 else [f"{path} is {value}; expected 0 or more, and less than 1"]


def one_of(path: str, value: str, known: Iterable[str]) -> list[str]:
    """One of the known names."""
    names = list(known)
    if value in names:
        return []
    nearest = get_close_matches(value, names, n=1)
    return [f"{path} is {value!r}; expected one of {', '.join(names)}" + (f" ({nearest[0]}?)" if nearest else "")]


def folder_name(path: str, value: str | None) -> list[str]:
    """The name of a run folder; None lets the run choose one."""
    if value is None or re.fullmatch(r"[A-Za-z0-9][\w.+-]*", value):
        return []
    return [f"{path} is {value!r}; expected letters, digits and . _ + - only"]


def present_device(path: str, value: str) -> list[str]:
    """A device of this machine."""
    try:
        resolve_device(value)
    except ValueError as error:
        return [f"{path}: {error}"]
    return []


def present_devices(path: str, count: int, device: str) -> list[str]:
    """The first ``count`` devices of a kind."""
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device
    present = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, count)
    if ":" in kind:
        return [f"{path} is {count}, and trainer.device={device!r} is one device; expected cuda or cpu"]
    return [] if count <= present else [f"{path} is {count}; this machine has {present} of trainer.device={device!r}"]


def unreadable(path: str, file: PromptFile) -> list[str]:
    """A file that gives prompts."""
    try:
        file.read()
    except ValueError as error:
        return [f"{path}: {error}"]
    return []


def unavailable(path: str, check: Callable[[str], object], name: str) -> list[str]:
    """A model that ``check`` raises no error for."""
    try:
        check(name)
    except (ValueError, OSError) as error:
        return [f"{path}: {error}"]
    return []


def folder_problems(path: str, folder: str | Path) -> list[str]:
    """One sentence, about the setting ``path``, where a file stands in the place of a folder or of one above it."""
    file = next((place for place in (Path(folder), *Path(folder).parents) if place.is_file()), None)
    return [f"{path}: '{file}' is a file; expected a folder, or a free name: choose another OUT"] if file else []
