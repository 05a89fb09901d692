"""Checks of single values, files, devices and models. Each returns one sentence for each problem."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from qd.data.prompt_files import PromptFile
from qd.runs.devices import resolve_device
from qd.runs.disk import disk_problem, try_writing
from qd.runs.process_rank import first_process
from qd.schema.checker import choice_problems


def bounded(path: str, value: float, low: float = -math.inf) -> list[str]:
    """A finite number, ``low`` or more; NaN fails too."""
    if math.isfinite(value) and value >= low:
        return []
    return [f"{path} is {value}; expected a finite number" + (f", {low} or more" if math.isfinite(low) else "")]


def positive(path: str, value: float) -> list[str]:
    """A finite number above 0."""
    return [] if 0 < value < math.inf else [f"{path} is {value}; expected a finite number above 0"]


def one_of(path: str, value: str, known: Iterable[str]) -> list[str]:
    """One of the known names."""
    return choice_problems(path, value, known)


def folder_name(path: str, value: str | None) -> list[str]:
    """A name that a run folder can have; None lets the run choose one."""
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


def present_devices(path: str, count: int, device_path: str, device: str) -> list[str]:
    """A number of devices that this machine has."""
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device
    present = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, count)
    if ":" in kind:
        return [f"{path} is {count}, but {device_path}={device!r} is a single device; expected cuda or cpu"]
    return [] if count <= present else [f"{path} is {count}; this machine has {present} of {device_path}={device!r}"]


def unreadable(path: str, file: PromptFile | str) -> list[str]:
    """A file of prompts that can be read; a text is parsed by ``PromptFile.parse``."""
    try:
        (PromptFile.parse(file) if isinstance(file, str) else file).read()
    except ValueError as error:
        return [f"{path}: {error}"]
    return []


def unavailable(path: str, check: Callable[[str], object], name: str) -> list[str]:
    """A model for which ``check`` raises no error."""
    try:
        check(name)
    except (ValueError, OSError) as error:
        return [f"{path}: {error}"]
    return []


def folder_problems(path: str, folder: str | Path) -> list[str]:
    """A folder that can be written, or made; the first process of a run tries it."""
    try:
        if first_process():
            try_writing(folder)
    except OSError as error:
        return [f"{path}: {disk_problem(error, 'run the same command again', folder)}"]
    return []


def file_problems(path: str, file: str | Path) -> list[str]:
    """A file that can be extended, or made; both are tried."""
    try:
        if Path(file).exists():
            Path(file).open("ab").close()
    except OSError as error:
        return [f"{path}: {disk_problem(error, 'run the same command again', file)}"]
    return folder_problems(path, Path(file).parent)


def new_place_problems(path: str, place: str | Path) -> list[str]:
    """A file or folder that does not exist yet and can be made; the folder that will contain it is tried."""
    try:
        os.lstat(place)
    except FileNotFoundError:
        return folder_problems(path, Path(place).parent)
    except OSError as error:
        return [f"{path}: {disk_problem(error, '', place)}"]
    return [f"{path}: {str(place)!r} exists already; choose another {path.upper()}, or remove it"]
