"""Packages that only some settings need: imports one, or says how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType


def install_command(package: str, extra: str | None = None) -> str:
    """Returns the command that installs a package: from the package index, or as an extra of this project.

    An extra is installed from the project's own folder, because the project is not on the package index.
    """
    return f"pip install {package}" if extra is None else f"pip install -e '.[{extra}]' in the project's folder"


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of a package that one of the project's extras installs.

    Raises:
        ValueError: it cannot be imported; the message names the package, the extra and the reason.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a compiled part that does not fit this torch
        package = module.partition(".")[0]
        command = install_command(package, extra)
        raise ValueError(f"the package {package!r} is needed: {command} ({error})") from error
