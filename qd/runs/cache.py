"""The cache folder, for files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns ``QD_CACHE``, or ``qd`` in the user's cache folder; the folder may not exist yet.

    Raises:
        RuntimeError: Neither ``QD_CACHE`` nor ``XDG_CACHE_HOME`` is set, and the user has no home folder.
    """
    folder = os.environ.get("QD_CACHE")
    if folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qd"
