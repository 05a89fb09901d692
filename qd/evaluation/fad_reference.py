"""Reference recordings of the Fréchet audio distance; their embeddings are computed once and cached."""

from __future__ import annotations

import hashlib
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qd.audio.resample import resample
from qd.data.manifest import reference_paths
from qd.data.world import world
from qd.data.world.degradation import CLEAN
from qd.data.world.world import BUILTIN
from qd.evaluation.embed_files import embed_files
from qd.evaluation.measurement import Fad
from qd.evaluation.points import content_key
from qd.metrics.frechet import MIN_SAMPLES, extrapolate, frechet_distance, gaussian
from qd.metrics.kernel import kernel_audio_distance
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.clip_embedder import WINDOWS_AT_ONCE, windows
from qd.models.embedders.loading import Embedder, load_fad_embedder
from qd.models.embedders.vggish import VGGish
from qd.runs.atomic import atomic_write
from qd.runs.collective import gather_objects, rank

SPLIT = "validation"
SECONDS = 4.0
"""Length of a clip of the built-in reference, in seconds."""
SUBSETS_SEED = 0
"""Seed for the subsets of FAD∞; the same for all points, whose tokens have other seeds."""
_DAMAGED = (
    AttributeError, EOFError, OSError, OverflowError, SyntaxError, TypeError, ValueError, tokenize.TokenError,
    zipfile.BadZipFile,
)  # fmt: skip
"""Errors of numpy for a damaged file; they depend on which byte is wrong."""


@dataclass(frozen=True)
class FadReference:
    """Recordings to which the clips of a policy are compared.

    Attributes:
        embedder: Embedder of recordings and clips.
        embeddings: Embeddings of the recordings, ``(windows, width)``.
        description: Name of recordings and embedder; distances with different descriptions are not comparable.
    """

    embedder: Embedder
    embeddings: Tensor
    description: str

    def windows(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Returns the embeddings of the windows of each clip, concatenated: ``(batch, windows · width)``."""
        return embed_windows(self.embedder, audio, sample_rate).unflatten(0, (len(audio), -1)).flatten(1)

    def distance(self, embedded: Tensor) -> Fad:
        """Returns the distances of all clips.

        Args:
            embedded: :meth:`windows` of all clips, ``(…, windows · width)``, at least ``MIN_SAMPLES`` windows.
        """
        generated = embedded.reshape(-1, self.embeddings.shape[1])
        reference = gaussian(self.embeddings)
        distance = frechet_distance(gaussian(generated), reference)
        infinite = extrapolate(generated, reference, seed=SUBSETS_SEED).intercept
        kernel = kernel_audio_distance(generated, self.embeddings)
        return Fad(float(distance), infinite, self.description, float(kernel))


def load_reference(name: str, embedder: str, pieces: int, device: torch.device, cache: Path) -> FadReference:
    """Embeds the recordings, or reads their cached embeddings; a damaged cache file is written again.

    Args:
        name: Folder or manifest of recordings, or ``builtin``: clean held-out pieces of the built-in world.
        embedder: Name for :func:`load_fad_embedder`.
        pieces: Number of pieces of the built-in reference.
        device: Device of the embedder.
        cache: Folder of the cached embeddings; files are named by recordings and embedder.

    Raises:
        ValueError: Recordings or embedder cannot be used, or there are too few recordings.
    """
    model = load_fad_embedder(embedder).to(device)
    paths = reference_paths(name)
    made_by = [_digest(path) for path in paths] if paths else [BUILTIN, SPLIT, pieces, SECONDS]
    key = content_key({"recordings": made_by, "embedder": fingerprint(model)})
    file = cache / f"{key}.npy"
    # The first rank decides: another one may look later, when the file exists.
    (cached, *_) = gather_objects(_cached(file) if rank() == 0 else None)
    known = cached is not None
    embeddings = torch.from_numpy(cached) if known else embed_recordings(model, paths, pieces, device)
    if len(embeddings) < MIN_SAMPLES:
        raise ValueError(f"reference {name!r} gives {len(embeddings)} embeddings; expected {MIN_SAMPLES} or more")
    if not known and rank() == 0:
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, embeddings.numpy())
    what = BUILTIN if paths is None else Path(name).name
    return FadReference(model, embeddings, f"{what}-{len(embeddings)}@{key[:8]}")


def _cached(file: Path) -> np.ndarray | None:
    """Returns the cached embeddings; None without a file, and with a warning if the file is damaged."""
    if not file.is_file():
        return None
    try:
        embeddings = np.load(file)
        if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
            raise ValueError(f"shape {embeddings.shape}, or values that are not finite")
    except _DAMAGED as error:
        warnings.warn(
            f"{file} cannot be read as the embeddings of a reference ({error}): they are computed again",
            stacklevel=2,
        )
        return None
    return embeddings


def embed_windows(embedder: Embedder, audio: Tensor, sample_rate: int) -> Tensor:
    """Embeds each window of ``audio`` ``(batch, samples)``; returns ``(batch · windows, width)``."""
    audio = resample(audio, sample_rate, embedder.sample_rate)
    if isinstance(embedder, VGGish):
        return embedder.embed_windows(audio).flatten(0, 1)
    clips = windows(audio, round(embedder.clip_seconds * embedder.sample_rate)).flatten(0, 1)
    return torch.cat([embedder(part) for part in clips.split(WINDOWS_AT_ONCE)])


def embed_recordings(embedder: Embedder, paths: list[Path] | None, pieces: int, device: torch.device) -> Tensor:
    """Embeds the files, or ``pieces`` clean held-out pieces of the built-in world; returns ``(windows, width)``."""
    if paths is not None:
        return torch.cat(embed_files(paths, partial(embed_windows, embedder), device, "reference"))
    clips = track(clean_pieces(pieces), "embedding the reference", pieces, console=Console(stderr=True), transient=True)
    return embed_batches(embedder, (clip.to(device) for clip in clips), world.SAMPLE_RATE)


def clean_pieces(count: int) -> Iterator[Tensor]:
    """Yields the first ``count`` clips of the held-out split without degradation, ``(1, samples)`` each."""
    index = clean = 0
    while clean < count:
        clip = world.clip(SPLIT, index, SECONDS)
        index += 1
        if clip.degradation == CLEAN:
            clean += 1
            yield torch.from_numpy(clip.audio)[None]


@torch.inference_mode()
def embed_batches(embedder: Embedder, audio: Iterator[Tensor], sample_rate: int) -> Tensor:
    """Embeds batches of audio; returns ``(windows, width)`` on the CPU."""
    return torch.cat([embed_windows(embedder, batch, sample_rate).float().cpu() for batch in audio])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
