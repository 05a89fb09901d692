"""Free disk space, the disk space that a run needs, and errors of the disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from qd.runs.atomic import TEMPORARY

FLOAT32_BYTES = 4
LOGS_BYTES = 200 * 2**20  # generous, for TensorBoard events with audio and figures

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, a full quota, and a file of the largest allowed size."""
_WAYS_OUT = {
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose a place on another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "choose another name",
    errno.ENOENT: "check the name, or choose another place",
    errno.EIO: "the disk is damaged or was removed: choose another one",
}


def try_writing(folder: str | Path) -> None:
    """Writes a small file into a folder, which may not exist yet, and removes everything again.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder = Path(folder)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        for place in missing:
            with suppress(OSError):  # it was not made, or another process uses it already
                place.rmdir()


def disk_problem(error: OSError, go_on: str, place: str | Path | None = None) -> str:
    """Describes an error of the disk: which file, why, and the way out.

    Args:
        error: The error.
        go_on: What to do after space was freed.
        place: File or folder that is named if the error names none.

    Example:
        >>> disk_problem(OSError(errno.EACCES, "Permission denied", "a/b"), "")
        "'a/b': permission denied; choose another place, or change its permissions"
    """
    name = error.filename if error.filename is not None else place
    if error.errno is None or name is None and error.errno not in FULL:
        return str(error)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        for folder in (Path(name), *Path(name).parents):
            if folder.is_file():
                return f"'{folder}' is a file; expected a folder or a new name: choose another one"
    reason = os.strerror(error.errno).lower()
    if error.errno not in FULL:
        way_out = _WAYS_OUT.get(error.errno)
        return f"{str(name)!r}: {reason}" + (f"; {way_out}" if way_out else "")
    folder, free = free_space(name if name is not None else ".")
    what = "a file" if name is None else repr(str(name))
    return (
        f"{what} cannot be written: {reason}; the disk of {str(folder)!r} has "
        f"{free / 2**30:.2f} GiB free. Files that were finished before are complete. Free some space, then {go_on}"
    )


def free_space(path: str | Path) -> tuple[Path, int]:
    """Returns the nearest existing folder of a future file or folder, and the bytes free on its disk."""
    folder = Path(path).resolve()
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free


def require_space(path: str | Path, needed: int, what: str, hint: str) -> None:
    """Raises an error unless the disk has enough space for a future file or folder.

    Args:
        path: File or folder to write.
        needed: Bytes to write.
        what: Subject and verb of the message, such as ``"the points need"``.
        hint: Another solution than freeing space.

    Raises:
        ValueError: Fewer than ``needed`` bytes are free.
    """
    folder, free = free_space(path)
    if free < needed:
        raise ValueError(
            f"{what} {needed / 2**30:.2f} GiB and {str(folder)!r} has {free / 2**30:.2f} GiB free; free some space, "
            f"{hint}"
        )


def disk_needed(trained: int, frozen: int, step_folders: int) -> int:
    """Returns the bytes that a run writes at most.

    Args:
        trained: Number of trained parameters.
        frozen: Number of the other parameters of the checkpoint: text encoder and codec.
        step_folders: Number of step folders to keep.
    """
    step_folder = (trained + frozen) * FLOAT32_BYTES
    resume_file = 3 * trained * FLOAT32_BYTES  # weights and AdamW's two moments
    # A new step folder and a new resume file are written before the old ones are removed.
    return (step_folders + 1) * step_folder + 2 * resume_file + LOGS_BYTES


def held_bytes(run: Path | None) -> int:
    """Returns the size of a run folder in bytes, without leftovers of killed processes; 0 for None."""
    files = [path for path in run.rglob("*") if path.is_file()] if run else []
    return sum(path.stat().st_size for path in files if not any(part.endswith(TEMPORARY) for part in path.parts))


def check_disk(runs: str | Path, needed: int, run: Path | None = None) -> None:
    """Raises an error unless the disk has enough space for a run.

    Args:
        runs: Folder of run folders.
        needed: Bytes of the whole run.
        run: Folder of a resumed run; the bytes that it holds already are not needed again.

    Raises:
        ValueError: Too little space is free.
    """
    held = held_bytes(run)
    what = "the rest of the run needs" if held else "the run needs"
    require_space(
        runs, needed - held, what, "set another trainer.runs, or keep fewer step folders (trainer.keep_weights)"
    )
