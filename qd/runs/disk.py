"""Free disk space, and the disk space that a run needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from qd.runs.atomic import TEMPORARY

FLOAT32_BYTES = 4
LOGS_BYTES = 200 * 2**20  # generous, for TensorBoard events with audio and figures


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
