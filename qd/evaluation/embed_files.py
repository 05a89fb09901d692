"""What an embedder hears in a list of audio files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qd.data.audio_files import BadAudioError, read_all

SHOWN = 20  # so many bad files are named in an error, and the others are counted


@torch.inference_mode()
def embed_files(
    paths: Sequence[Path], embed: Callable[[Tensor, int], Tensor], device: torch.device, what: str
) -> list[Tensor]:
    """The embeddings of each file, on the CPU; every file is read and heard once.

    Args:
        paths: of audio files, of any sample rate and length.
        embed: audio ``(1, samples)`` and its sample rate in Hz → ``(k, width)``.
        device: where it hears.
        what: the files are, for the progress bar and the error message.

    Raises:
        ValueError: files cannot be read, or give embeddings that are not finite; all are named.
    """
    found, bad = [], []
    for path in track(paths, f"hearing {what}", console=Console(stderr=True), transient=True):
        try:
            audio, rate = read_all(path)
        except BadAudioError as error:
            bad.append(f"  • {path}: {error}")
            continue
        embeddings = embed(torch.from_numpy(audio)[None].to(device), rate).float().cpu()
        if not embeddings.isfinite().all():
            bad.append(f"  • {path}: its embedding is not finite")
        found.append(embeddings)
    if bad:
        more = [f"  • and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        raise ValueError(
            "\n".join([f"{len(bad)} of {len(paths)} {what} cannot be used; mend or remove them:", *bad[:SHOWN], *more])
        )
    return found
