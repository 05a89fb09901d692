"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``QD_CACHE``, or ``qd`` in the user's cache folder; it may not be there yet.

    Raises:
        RuntimeError: neither is named and the user has no home folder.
    """
    given = os.environ.get("QD_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qd"
