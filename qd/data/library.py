"""A user's own recordings: what is trained on, and what is held out.

A recording is held out by a hash of its name, so that it stays on its side when others are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import track

from qd.data.audio_files import BadAudioError, ClipShape, check
from qd.data.collection import ORDER, Collection, FileCollection, FixedLibrary, TrainingLibrary
from qd.data.manifest import list_recordings
from qd.data.recordings import Recordings, RecordingsError, SequentialRecordings
from qd.data.skipped import SkippedFiles

SPLITS = ("train", "validation", "all")
DATASETS = "datasets:"
THREADS = 16  # they wait for the disk more than for the processor


def open_recordings(
    source: str,
    *,
    sample_rate: int,
    seconds: float,
    seed: int,
    split: str,
    validation_share: float,
    max_bad_share: float = 0.1,
    skipped: Path | None = None,
    pairs: int | None = None,
    streaming: bool = False,
) -> Recordings | SequentialRecordings:
    """The recordings of a folder, a manifest or a dataset.

    Their headers and ends are looked at first, by threads; a bar on stderr shows how far that is.

    Args:
        source: a folder, a ``.csv`` or ``.jsonl`` manifest, or ``datasets:<hub name or folder>[:<split>]``.
        sample_rate: of the clips, in Hz; files of any rate are resampled.
        seconds: of one clip.
        seed: of the order and the positions.
        split: ``train`` (endless, in a new order each time), ``validation`` (fixed, none twice), or ``all``
            (the same, of the whole source).
        validation_share: of the recordings, held out.
        max_bad_share: of those looked at, above which there is an error.
        skipped: JSONL file that lists the bad ones; None writes none.
        pairs: of ``validation`` and ``all``: so many recordings are enough, and no more are looked at.
        streaming: go through a dataset in order without storing it; ``train`` is then a ``SequentialRecordings``.

    Raises:
        ValueError: an unknown split or source, a share out of range, nothing that can be used, fewer than 2 recordings
            on either side, or too many bad ones; the message tells what to do.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if not 0 <= validation_share < 1 or not 0 <= max_bad_share <= 1:
        raise ValueError(
            f"data.validation_share is {validation_share}, data.max_bad_share {max_bad_share}; expected shares below 1"
        )
    shape = ClipShape(round(seconds * sample_rate), sample_rate)
    if streaming:
        if not source.startswith(DATASETS):
            raise ValueError(f"data.streaming is for {DATASETS} sources; {source!r} is read from disk as it is")
        from qd.data.streaming import open_stream

        return open_stream(
            source.removeprefix(DATASETS), shape, seed, split, validation_share, max_bad_share, skipped, pairs
        )
    collection = _collection(source)
    numbers = split_numbers(collection.names, validation_share, split, source)
    found = SkippedFiles(skipped, max_bad_share, len(numbers))
    if split == "train":
        numbers = _whole_files(collection, numbers, shape, found)
        return TrainingLibrary(collection, _enough(numbers, source, found), shape, seed, found)
    numbers = _usable(collection, np.random.default_rng([ORDER, seed]).permutation(numbers), shape, seed, pairs, found)
    return FixedLibrary(collection, _enough(numbers, source, found), shape, seed)


def held_out_score(name: str) -> float:
    """Uniform in [0, 1) by a hash of the name: a recording is held out if it is below the share."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def split_numbers(names: Sequence[str], validation_share: float, split: str, source: str) -> np.ndarray:
    """Numbers of the recordings that are of ``split``, ascending.

    Raises:
        ValueError: there are fewer than 2 on either side.
    """
    if split == "all":
        return np.arange(len(names))
    scores = np.array([held_out_score(name) for name in names])
    held_out = scores < validation_share
    count = int(held_out.sum())
    if len(names) < 4:
        raise ValueError(
            f"recordings {source!r}: there {'is one' if len(names) == 1 else f'are {len(names)}'}; at least 4 are "
            "needed, 2 to train on and 2 to hold out, because an embedder learns to tell recordings apart"
        )
    if not 2 <= count <= len(names) - 2:
        middle = np.sort(scores)[[1, 2]].mean() if count < 2 else np.sort(scores)[[-3, -2]].mean()
        raise ValueError(
            f"recordings {source!r}: data.validation_share={validation_share} holds out {count} of {len(names)}; at "
            f"least 2 are needed on each side, as with data.validation_share={middle:.3g}"
        )
    return np.flatnonzero(held_out == (split == "validation"))


def _collection(source: str) -> Collection:
    if source.startswith(DATASETS):
        from qd.data.huggingface import HuggingFaceCollection

        return HuggingFaceCollection(source.removeprefix(DATASETS))
    return FileCollection(list_recordings(source, "'builtin'", "'datasets:<name or folder>'"))


def _whole_files(collection: Collection, numbers: np.ndarray, shape: ClipShape, found: SkippedFiles) -> np.ndarray:
    """The numbers without those whose header or end is bad. A dataset's files are not looked at before they are
    needed, because each would have to be read as a whole."""
    if not isinstance(collection, FileCollection):
        return numbers
    return _good(collection, numbers, lambda number: check(collection.audio(number), shape), found, "looking at files")


def _usable(
    collection: Collection, order: np.ndarray, shape: ClipShape, seed: int, most: int | None, found: SkippedFiles
) -> np.ndarray:
    """The first ``most`` of the numbers whose clips can be decoded, or all."""
    library, good = FixedLibrary(collection, order, shape, seed), np.array([], dtype=int)

    def look(number: int) -> None:
        check(collection.audio(number), shape)  # clips from the first half do not show that the second is missing
        library.read(number)

    while len(order) and (most is None or len(good) < most):
        chunk, order = np.split(order, [len(order) if most is None else most - len(good)])
        good = np.append(good, _good(collection, chunk, look, found, "decoding held-out clips"))
    return good


def _good(
    collection: Collection, numbers: np.ndarray, look: Callable[[int], object], found: SkippedFiles, what: str
) -> np.ndarray:
    """The numbers for which ``look`` raises no ``BadAudioError``; the others are recorded."""

    def problem(number: int) -> BadAudioError | None:
        try:
            look(number)
        except BadAudioError as error:
            return error

    console = Console(stderr=True)
    quiet = rank_zero_only.rank != 0 or not console.is_terminal
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(problem, map(int, numbers))
        problems = list(track(looked, what, len(numbers), console=console, disable=quiet))
    labels = [collection.labels[number] for number in numbers]
    bad = {label: error for label, error in zip(labels, problems, strict=True) if error}
    found.looked_at(labels, bad)
    if bad and rank_zero_only.rank == 0:
        console.print(f"{len(bad)} of {len(labels)} recordings are skipped: {found.summary()}", highlight=False)
    return numbers[[error is None for error in problems]]


def _enough(numbers: np.ndarray, source: str, found: SkippedFiles) -> np.ndarray:
    if len(numbers) < 2:
        raise RecordingsError(
            f"recordings {source!r}: {len(numbers)} can be used; at least 2 are needed to tell them apart; of the "
            f"others: {found.summary()}"
        )
    return numbers
