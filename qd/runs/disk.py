"""Room and places on the disk. In a file of its own: commands that train nothing ask too, and importing Lightning takes
long."""

from __future__ import annotations

import shutil
from pathlib import Path

FLOAT32_BYTES = 4
LOGS_BYTES = 200 * 2**20  # TensorBoard events with audio and figures, generously


def free_space(place: str | Path) -> tuple[Path, int]:
    """The folder on whose disk a file or folder is, or will be, and the bytes that are free there."""
    folder = Path(place).resolve()
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free


def disk_needed(trained: int, frozen: int, step_folders: int) -> int:
    """Bytes that a run writes at most.

    Args:
        trained: parameters that the optimiser changes.
        frozen: the other parameters of the checkpoint: text encoder and codec.
        step_folders: how many are kept.
    """
    step_folder = (trained + frozen) * FLOAT32_BYTES
    resume_file = 3 * trained * FLOAT32_BYTES  # weights and AdamW's two moments
    return (
        (step_folders + 1) * step_folder + 2 * resume_file + LOGS_BYTES
    )  # the next one is written before the old goes


def held_bytes(run: Path | None) -> int:
    """What a run folder holds; of none, nothing."""
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) if run else 0


def check_disk(runs: str | Path, needed: int, run: Path | None = None) -> None:
    """Refuses to start, or to go on with, a run that the disk cannot hold.

    Args:
        runs: the folder of run folders.
        needed: bytes of the whole run.
        run: folder of a run that goes on; what it holds already is not needed again.

    Raises:
        ValueError: fewer bytes than are needed are free where ``runs`` is, or will be.
    """
    held = held_bytes(run)
    missing = needed - held
    folder, free = free_space(runs)
    if free < missing:
        raise ValueError(
            f"the run needs {missing / 2**30:.1f} GiB{' more' if held else ''} and {str(folder)!r} has "
            f"{free / 2**30:.1f} GiB free; make room, name another trainer.runs, or keep fewer step folders "
            "(trainer.keep_weights)"
        )
