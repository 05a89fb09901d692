"""Room on the disk. In a file of its own: commands that train nothing ask too, and importing Lightning takes long."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_space(place: str | Path) -> tuple[Path, int]:
    """The folder on whose disk a file or folder is, or will be, and the bytes that are free there."""
    folder = Path(place).resolve()
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free
