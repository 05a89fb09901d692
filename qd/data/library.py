"""Opens a user's own recordings and splits them into training and held-out ones.

A hash of its name decides whether a recording is held out, so it stays on its side when others are added.
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
from qd.runs.printable import printable

SPLITS = ("train", "validation", "all")
DATASETS = "datasets:"
THREADS = 16  # more than cores: they mostly wait for the disk


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
    quiet: bool = False,
) -> Recordings | SequentialRecordings:
    """Opens the recordings of a folder, a manifest or a dataset.

    Threads check the headers and ends of the files first; a bar on stderr shows the progress.

    Args:
        source: Folder, ``.csv`` or ``.jsonl`` manifest, or ``datasets:<hub name or folder>[:<split>]``.
        sample_rate: Sample rate of the clips in Hz; files of any rate are resampled.
        seconds: Length of a clip.
        seed: Seed for the order and the positions.
        split: ``train`` (endless, a new order each epoch), ``validation`` (fixed, each recording once), or ``all``
            (fixed, the whole source).
        validation_share: Share of held-out recordings.
        max_bad_share: Highest share of bad recordings among those checked.
        skipped: JSONL file that lists the bad recordings; None writes no file.
        pairs: Most recordings for ``validation`` and ``all``; further ones are not checked.
        streaming: Read a dataset in order without storing it; ``train`` then returns a ``SequentialRecordings``.
        quiet: Do not report the skipped recordings, because they were reported before.

    Raises:
        ValueError: The split or source is unknown, a share is out of range, no recording is usable, a side has fewer
            than 2 recordings, or too many recordings are bad; the message states the fix.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if not 0 <= validation_share < 1 or not 0 <= max_bad_share <= 1:
        raise ValueError(
            f"data.validation_share is {validation_share} and data.max_bad_share is {max_bad_share}; "
            "expected shares from 0 to 1, validation_share below 1"
        )
    shape = ClipShape(round(seconds * sample_rate), sample_rate)
    if streaming:
        if not source.startswith(DATASETS):
            raise ValueError(f"data.streaming is for {DATASETS} sources; set data.streaming=false for {source!r}")
        from qd.data.streaming import open_stream

        return open_stream(
            source.removeprefix(DATASETS), shape, seed, split, validation_share, max_bad_share, skipped, pairs
        )
    collection = _collection(source)
    numbers = split_numbers(collection.names, validation_share, split, source)
    bad_files = SkippedFiles(skipped, max_bad_share, len(numbers), quiet)
    if split == "train":
        numbers = _whole_files(collection, numbers, shape, bad_files)
        return TrainingLibrary(collection, _enough(numbers, source, bad_files), shape, seed, bad_files)
    order = np.random.default_rng([ORDER, seed]).permutation(numbers)
    numbers = _usable(collection, order, shape, seed, pairs, bad_files)
    return FixedLibrary(collection, _enough(numbers, source, bad_files), shape, seed)


def held_out_score(name: str) -> float:
    """Returns a hash of the name as a number in [0, 1); a recording is held out if it is below the share."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def split_numbers(names: Sequence[str], validation_share: float, split: str, source: str) -> np.ndarray:
    """Returns the numbers of the recordings in ``split``, ascending.

    Raises:
        ValueError: A side has fewer than 2 recordings.
    """
    if split == "all":
        return np.arange(len(names))
    scores = np.array([held_out_score(name) for name in names])
    held_out = scores < validation_share
    count = int(held_out.sum())
    if len(names) < 4:
        raise ValueError(
            f"recordings {source!r}: found {len(names)}; at least 4 are needed, 2 for training and 2 held out, because "
            "an embedder learns to distinguish recordings"
        )
    if not 2 <= count <= len(names) - 2:
        middle = np.sort(scores)[[1, 2]].mean() if count < 2 else np.sort(scores)[[-3, -2]].mean()
        raise ValueError(
            f"recordings {source!r}: data.validation_share={validation_share} holds out {count} of {len(names)}; "
            f"each side needs at least 2: set data.validation_share={middle:.3g}"
        )
    return np.flatnonzero(held_out == (split == "validation"))


def _collection(source: str) -> Collection:
    if source.startswith(DATASETS):
        from qd.data.huggingface import HuggingFaceCollection

        return HuggingFaceCollection(source.removeprefix(DATASETS))
    return FileCollection(list_recordings(source, "'builtin'", "'datasets:<name or folder>'"))


def _whole_files(collection: Collection, numbers: np.ndarray, shape: ClipShape, bad_files: SkippedFiles) -> np.ndarray:
    """Returns the numbers of the files with a good header and end.

    The recordings of a dataset are not checked before use, because a check would read each of them as a whole.
    """
    if not isinstance(collection, FileCollection):
        return numbers
    return _good(
        collection, numbers, lambda number: check(collection.audio(number), shape), bad_files, "checking files"
    )


def _usable(
    collection: Collection, order: np.ndarray, shape: ClipShape, seed: int, most: int | None, bad_files: SkippedFiles
) -> np.ndarray:
    """Returns the first ``most`` numbers (None: all) whose clips can be decoded."""
    library, good = FixedLibrary(collection, order, shape, seed), np.array([], dtype=int)

    def decode(number: int) -> None:
        check(collection.audio(number), shape)  # clips from the first half do not show that the second is missing
        library.read(number)

    while len(order) and (most is None or len(good) < most):
        chunk, order = np.split(order, [len(order) if most is None else most - len(good)])
        good = np.append(good, _good(collection, chunk, decode, bad_files, "decoding held-out clips"))
    return good


def _good(
    collection: Collection, numbers: np.ndarray, test: Callable[[int], object], bad_files: SkippedFiles, title: str
) -> np.ndarray:
    """Returns the numbers for which ``test`` raises no ``BadAudioError``, and records the others."""

    def problem(number: int) -> BadAudioError | None:
        try:
            test(number)
        except BadAudioError as error:
            return error

    console = Console(stderr=True)
    quiet = rank_zero_only.rank != 0 or not console.is_terminal
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(problem, map(int, numbers))
        problems = list(track(results, title, len(numbers), console=console, disable=quiet))
    labels = [collection.labels[number] for number in numbers]
    bad = {label: error for label, error in zip(labels, problems, strict=True) if error}
    bad_files.record(labels, bad)
    if bad and rank_zero_only.rank == 0 and not bad_files.quiet:
        text = printable(f"{len(bad)} of {len(labels)} recordings are skipped: {bad_files.summary()}")
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    return numbers[[error is None for error in problems]]


def _enough(numbers: np.ndarray, source: str, bad_files: SkippedFiles) -> np.ndarray:
    if len(numbers) < 2:
        raise RecordingsError(
            f"recordings {source!r}: {len(numbers)} can be used; at least 2 are needed; "
            f"bad recordings: {bad_files.summary()}"
        )
    return numbers
