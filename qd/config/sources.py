"""Reads the sources of a config: YAML files and ``key=value`` overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from qd.schema.paths import expand_home

EXTENDS = "extends"
RESOLVER = re.compile(r"\$\{[^}]*(:|\$\{)")
"""An interpolation that calls a function, such as ``${oc.env:HF_TOKEN}``; ``${trainer.max_steps}`` does not match."""


def config_folder() -> Path:
    """The folder of the shipped YAML files: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def read_files(folder: Path, name: str | None, problems: list[str]) -> Iterator[tuple[str, dict]]:
    """Yields name and content of the default file of a folder, then of the overlays, the last one last.

    Args:
        folder: Folder of one kind of configs.
        name: Name or path of the overlay; None for the default file alone.
        problems: Gets one sentence for each file that cannot be read.
    """
    default = folder / "default.yaml"
    if default.is_file():
        yield from read_tree(default, problems)
    overlays: list[tuple[str, dict]] = []
    while name is not None and name != "default":
        path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
        if str(path) in dict(overlays):
            problems.append(f"{path} extends itself; remove one `extends`")
            break
        read = list(read_tree(path, problems))
        name = next((tree.pop(EXTENDS, None) for _, tree in read), None)
        if name is not None and not isinstance(name, str):
            problems.append(f"{path}: {EXTENDS} must be the name of another config, not {name!r}")
            name = None
        name = expand_home(name)
        overlays += read
    yield from reversed(overlays)


def read_tree(path: Path, problems: list[str]) -> Iterator[tuple[str, dict]]:
    """Yields name and content of one file, or adds the reason why it cannot be read to ``problems``."""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe may never end
        problems.append(f"{path} is a folder, a device or a pipe; expected a YAML file")
        return
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        shipped = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        problems.append(f"there is no config {str(path)!r}; name a YAML file or one of: {shipped}")
    except RecursionError:
        problems.append(f"{path} is nested too deeply; expected the groups and keys that `qd config` prints")
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        problems.append(f"{path} cannot be read: {reason}; correct the file, or restore it if it was cut")
    else:
        if calls := list(_calls(str(path), tree)):
            problems += calls
        elif isinstance(tree, dict):
            yield str(path), tree
        else:
            problems.append(f"{path} holds a list; expected `key: value` lines")


def read_overrides(overrides: Sequence[str], problems: list[str]) -> Iterator[tuple[str, dict]]:
    """Yields each override as a tree; adds those that cannot be read to ``problems``."""
    for text in overrides:
        key, equals, _ = text.partition("=")
        if not key.strip() or not equals:
            problems.append(f"override {text!r} does not have the form key=value")
            continue
        try:
            tree = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
        except (YAMLError, OmegaConfBaseException, RecursionError) as error:
            problems.append(f"override {text!r} cannot be read: {' '.join(str(error).split())}")
            continue
        if calls := list(_calls(f"override {text!r}", tree)):
            problems += calls
        else:
            yield f"override {text!r}", tree


def _calls(where: str, value: Any, path: str = "") -> Iterator[str]:
    """One sentence for each text that calls a function: its value would be saved with the run and in model cards."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _calls(where, inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _calls(where, inner, f"{path}[{index}]")
    elif isinstance(value, str) and RESOLVER.search(value):
        yield (
            f"{where}: {path} is {value!r}; expected the value itself: the environment and other functions are not "
            "read, because settings are saved in config.yaml and in model cards"
        )
