"""Embeds a list of audio files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qd.data.audio_files import BadAudioError, check_whole, read_all
from qd.metrics.formatting import bullet_list

FILES_IN_MESSAGE = 20


@torch.inference_mode()
def embed_files(
    paths: Sequence[Path], embed: Callable[[Tensor, int], Tensor], device: torch.device, what: str
) -> list[Tensor]:
    """Returns the embeddings of each file, on the CPU; every file is read once.

    Args:
        paths: Audio files of any sample rate and length.
        embed: Function from audio ``(1, samples)`` and its sample rate in Hz to embeddings ``(k, width)``.
        device: Device of the embedder.
        what: Name of the files, for the progress bar and the error message.

    Raises:
        ValueError: Files cannot be read, or have embeddings that are not finite; the message lists them.
    """
    embeddings, problems = [], []
    for path in track(paths, f"embedding {what}", console=Console(stderr=True), transient=True):
        try:
            audio, rate = read_all(path)
        except BadAudioError as error:
            problems.append(f"{path}: {error}")
            continue
        embeddings.append(embed(torch.from_numpy(audio)[None].to(device), rate).float().cpu())
        if not embeddings[-1].isfinite().all():
            problems.append(f"{path}: its embedding is not finite")
    _refuse(problems, len(paths), what)
    return embeddings


def require_whole(paths: Sequence[Path], what: str) -> None:
    """Checks headers and ends of audio files, without decoding them, before the long work begins.

    Raises:
        ValueError: Files cannot be read or are cut; the message lists them.
    """
    problems = []
    for path in paths:
        try:
            check_whole(path)
        except BadAudioError as error:
            problems.append(f"{path}: {error}")
    _refuse(problems, len(paths), what)


def _refuse(problems: Sequence[str], count: int, what: str) -> None:
    if problems:
        heading = f"{len(problems)} of {count} {what} cannot be used; repair or remove them:"
        raise ValueError(bullet_list(heading, problems, FILES_IN_MESSAGE))
