"""The checkpoint of a run: how it is written, found and checked."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from qd.runs.atomic import atomic_write
from qd.runs.folders import CHECKPOINT
from qd.runs.process_rank import first_process

PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step")
"""What a resumed run needs."""


class DamagedCheckpointError(ValueError):
    """A checkpoint cannot be read, or something is missing in it; the message is one line that names the file."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint next to its target, completely or not at all.

    Lightning's own way needs the size of the checkpoint twice in memory, and once in ``TMPDIR``, which may be small.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        try:
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # of torch's writer, which gives no reason, on a disk that shows none any more
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error


def newest_checkpoint(run: Path) -> Path | None:
    """Returns the file that a run resumes from; None if the run was stopped before it wrote one."""
    checkpoint = run / CHECKPOINT
    return checkpoint if os.path.lexists(checkpoint) else None


def checkpoint_step(file: Path) -> int:
    """Returns the optimiser steps of a checkpoint, without reading its tensors.

    Raises:
        DamagedCheckpointError: The file is no checkpoint, or it is cut or empty.
    """
    step = _load(file).get("global_step")
    if not isinstance(step, int) or step < 0:
        raise DamagedCheckpointError(f"{str(file)!r} is damaged: it has no number of steps (global_step)")
    return step


def check_checkpoint(file: Path, module: nn.Module) -> int:
    """Returns the optimiser steps of a checkpoint, after a check of all that a resumed run needs.

    The first process reads the whole file and compares the checksums in it.

    Args:
        file: Path of the checkpoint.
        module: Module that will load it.

    Raises:
        DamagedCheckpointError: The checkpoint is damaged in any way, or is that of another module.
    """
    step = checkpoint_step(file)
    problem = _damaged_part(file) if first_process() else None
    problem = problem or _problem(_load(file), module.state_dict())
    if problem:
        raise DamagedCheckpointError(f"{str(file)!r} is damaged: {problem}")
    return step


def _load(file: Path) -> dict[str, Any]:
    """The content; its tensors stay on the disk."""
    if not file.is_file():
        what = "a folder" if file.is_dir() else "a device or a pipe" if file.exists() else "missing"
        raise DamagedCheckpointError(f"{str(file)!r} is {what}; expected a checkpoint")
    if file.stat().st_size == 0:
        raise DamagedCheckpointError(f"{str(file)!r} is empty; expected a checkpoint")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file can raise almost anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DamagedCheckpointError(
            f"{str(file)!r} is cut, or no checkpoint ({reason[0][:100].rstrip('.')})"
        ) from error
    if not isinstance(content, dict):
        raise DamagedCheckpointError(f"{str(file)!r} is no checkpoint: it holds a {type(content).__name__}")
    return content


def _damaged_part(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        return str(error)
    return part and f"the checksum of its part {part!r} is wrong"


def _problem(content: Mapping[str, Any], own: Mapping[str, Tensor]) -> str | None:
    """What is missing in the checkpoint of a module with the tensors ``own``; None if nothing is."""
    if missing := [part for part in PARTS if part not in content]:
        return f"{', '.join(missing)} is missing"
    saved = content["state_dict"]
    if missing := [name for name in own if name not in saved]:
        return f"{len(missing)} of {len(own)} tensors are missing, such as {missing[0]!r}"
    for name, tensor in saved.items():
        if name not in own:
            return f"the tensor {name!r} does not belong to this run"
        if tensor.shape != own[name].shape:
            return f"the tensor {name!r} has the shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}"
    for optimizer in content["optimizer_states"]:
        numbers = {number for group in optimizer["param_groups"] for number in group["params"]}
        if optimizer["state"] and (missing := numbers - optimizer["state"].keys()):
            return f"the optimiser's state of {len(missing)} of {len(numbers)} tensors is missing"
    return None
