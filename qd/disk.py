"""Room and places on the disk. In a file of its own: commands that train nothing ask too, and importing Lightning takes
long."""

from __future__ import annotations

import shutil
from pathlib import Path


def folder_problems(path: str, folder: str | Path) -> list[str]:
    """One sentence, about the setting ``path``, where a file stands in the place of a folder or of one above it."""
    file = next((place for place in (Path(folder), *Path(folder).parents) if place.is_file()), None)
    return [f"{path}: '{file}' is a file; expected a folder, or a free name: choose another OUT"] if file else []


def free_space(place: str | Path) -> tuple[Path, int]:
    """The folder on whose disk a file or folder is, or will be, and the bytes that are free there."""
    folder = Path(place).resolve()
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free
