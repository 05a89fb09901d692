"""What the Fréchet audio distance is measured to: recordings, as an embedder hears them, heard once and kept."""

from __future__ import annotations

import hashlib
import time
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
from qd.metrics.frechet import LEAST, extrapolate, frechet_distance, gaussian
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.clip_embedder import WINDOWS_AT_ONCE, windows
from qd.models.embedders.loading import Embedder, load_fad_embedder
from qd.models.embedders.vggish import VGGish
from qd.runs.collective import gather_objects, rank

SPLIT = "validation"
SECONDS = 4.0
"""Length of a clip of the built-in reference."""
SUBSETS_SEED = 0
"""Of the subsets of FAD∞ in a sweep, whose points draw their tokens by other seeds."""
_DAMAGED = (
    AttributeError, EOFError, OSError, OverflowError, SyntaxError, TypeError, ValueError, tokenize.TokenError,
    zipfile.BadZipFile,
)  # fmt: skip
"""What numpy raises where a byte is wrong, by where it is."""


@dataclass(frozen=True)
class FadReference:
    """Recordings to which a policy's clips are compared.

    Attributes:
        embedder: hears both.
        embeddings: of the recordings, ``(windows, width)``.
        description: of recordings and embedder: distances of other ones do not compare.
    """

    embedder: Embedder
    embeddings: Tensor
    description: str

    def windows(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Embeddings of the windows of each clip, one behind the other: ``(batch, windows · width)``."""
        return embed_windows(self.embedder, audio, sample_rate).unflatten(0, (len(audio), -1)).flatten(1)

    def distance(self, heard: Tensor) -> Fad:
        """From what :meth:`windows` gave of all clips ``(…, windows · width)``, of ``LEAST`` windows or more."""
        generated = heard.reshape(-1, self.embeddings.shape[1])
        reference = gaussian(self.embeddings)
        distance = frechet_distance(gaussian(generated), reference)
        infinite = extrapolate(generated, reference, seed=SUBSETS_SEED).intercept
        return Fad(float(distance), infinite, self.description)


def load_reference(name: str, embedder: str, pieces: int, device: torch.device, cache: Path) -> FadReference:
    """The recordings as the embedder hears them; what was heard before is read from ``cache``, or heard again where it
    is damaged.

    Args:
        name: folder or manifest of recordings, or ``builtin``: clean held-out pieces of the built-in world.
        embedder: see :func:`load_fad_embedder`.
        pieces: of the built-in reference.
        device: where it hears.
        cache: folder of files named by recordings and embedder.

    Raises:
        ValueError: recordings or embedder cannot be used, or there are too few recordings.
    """
    listener = load_fad_embedder(embedder).to(device)
    paths = reference_paths(name)
    made_by = [_digest(path) for path in paths] if paths else [BUILTIN, SPLIT, pieces, SECONDS]
    key = content_key({"recordings": made_by, "embedder": fingerprint(listener)})
    file = cache / f"{key}.npy"
    # What the first rank has found counts: another may come a moment later, when the file has appeared.
    (kept, *_) = gather_objects(_kept(file) if rank() == 0 else None)
    known = kept is not None
    embeddings = torch.from_numpy(kept) if known else hear_recordings(listener, paths, pieces, device)
    if len(embeddings) < LEAST:
        raise ValueError(f"reference {name!r} gives {len(embeddings)} embeddings; expected {LEAST} or more")
    if not known and rank() == 0:
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{key}.{time.time_ns()}.tmp")
        with unfinished.open("wb") as stream:
            np.save(stream, embeddings.numpy())
        unfinished.replace(file)
    what = BUILTIN if paths is None else Path(name).name
    return FadReference(listener, embeddings, f"{what}-{len(embeddings)}@{key[:8]}")


def _kept(file: Path) -> np.ndarray | None:
    """What was heard before; None where nothing is kept, or nothing that can be read, which is told."""
    if not file.is_file():
        return None
    try:
        embeddings = np.load(file)
        if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
            raise ValueError(f"shape {embeddings.shape}, or values that are not finite")
    except _DAMAGED as error:
        warnings.warn(
            f"{file} cannot be read as the embeddings of a reference ({error}): it is heard again and written anew",
            stacklevel=2,
        )
        return None
    return embeddings


def embed_windows(embedder: Embedder, audio: Tensor, sample_rate: int) -> Tensor:
    """Embeddings ``(batch · windows, width)`` of the windows of ``audio`` ``(batch, samples)``, each on its own."""
    audio = resample(audio, sample_rate, embedder.sample_rate)
    if isinstance(embedder, VGGish):
        return embedder.embed_windows(audio).flatten(0, 1)
    clips = windows(audio, round(embedder.clip_seconds * embedder.sample_rate)).flatten(0, 1)
    return torch.cat([embedder(part) for part in clips.split(WINDOWS_AT_ONCE)])


def hear_recordings(embedder: Embedder, paths: list[Path] | None, pieces: int, device: torch.device) -> Tensor:
    """Embeddings ``(windows, width)`` of the files, or of so many clean held-out pieces of the built-in world."""
    if paths is not None:
        return torch.cat(embed_files(paths, partial(embed_windows, embedder), device, "reference"))
    clips = track(clean_pieces(pieces), "hearing the reference", pieces, console=Console(stderr=True), transient=True)
    return hear(embedder, (clip.to(device) for clip in clips), world.SAMPLE_RATE)


def clean_pieces(count: int) -> Iterator[Tensor]:
    """The first clips of the held-out split whose recording is not degraded, ``(1, samples)`` each."""
    index = found = 0
    while found < count:
        clip = world.clip(SPLIT, index, SECONDS)
        index += 1
        if clip.degradation == CLEAN:
            found += 1
            yield torch.from_numpy(clip.audio)[None]


@torch.inference_mode()
def hear(embedder: Embedder, audio: Iterator[Tensor], sample_rate: int) -> Tensor:
    """Embeddings ``(windows, width)`` of batches of audio, on the CPU."""
    return torch.cat([embed_windows(embedder, batch, sample_rate).float().cpu() for batch in audio])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
