"""Recordings of a Hugging Face dataset: from the hub, a folder of ``save_to_disk``, or any source of ``load_dataset``.

libsndfile decodes the encoded bytes; the library's own decoder, torchcodec, is only needed to build a dataset from
loose audio files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from qd.runs.extras import require

SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
"""A folder of ``save_to_disk`` contains one of these files."""
GENRE_COLUMNS = ("genre", "label")


class AudioDataset(NamedTuple):
    """A dataset whose audio stays encoded.

    Attributes:
        rows: ``Dataset`` or ``IterableDataset`` of the library.
        column: Name of the audio column.
        genre: Returns the genre of a row; None if unknown.
    """

    rows: Any
    column: str
    genre: Callable[[Mapping[str, Any]], str | None]


class HuggingFaceCollection:
    """Rows of a dataset on this machine; a dataset of the hub is downloaded first.

    A recording's name is the path in its row (relative to a local dataset's folder) if all rows have distinct paths,
    otherwise the row's number.

    Args:
        spec: ``<hub name or folder>[:<split>]``.

    Raises:
        ValueError: As :func:`open_dataset`.
    """

    def __init__(self, spec: str) -> None:
        dataset = open_dataset(spec, streaming=False)
        self.rows, self.column, self._genre = dataset
        # The default format shows all columns; flattening renames them.
        paths = self.rows.flatten().with_format(None)[f"{self.column}.path"][:]
        distinct = all(paths) and len(set(paths)) == len(paths)
        folder = f"{os.path.abspath(_split_spec(spec)[0])}{os.sep}"
        self.names = (
            [path.removeprefix(folder) for path in paths] if distinct else [f"{i:08d}" for i in range(len(paths))]
        )
        self.labels = [f"datasets:{spec}/{name}" for name in self.names]
        self._others = [name for name in self.rows.column_names if name != self.column]

    def audio(self, number: int) -> Path | bytes:
        return encoded(self.rows[number][self.column])

    def genre(self, number: int) -> str | None:
        return self._genre(self.rows.select_columns(self._others)[number]) if self._others else None


def open_dataset(spec: str, streaming: bool) -> AudioDataset:
    """Opens ``<hub name or folder>[:<split>]``; the default split is ``train``, or the only one.

    Raises:
        ValueError: The library is not installed, the dataset or split does not exist, or the audio column is ambiguous
            or missing.
    """
    datasets = _library()
    name, split = _split_spec(spec)
    try:
        rows = _open(datasets, name, streaming)
        rows = _pick_split(rows, name, split) if isinstance(rows, dict) else rows
    except Exception as error:  # the library raises errors of any kind for files of others
        raise ValueError(f"recordings 'datasets:{spec}' cannot be opened: {_reason(error)}") from error
    features = rows.features or {}
    columns = [column for column, feature in features.items() if isinstance(feature, datasets.Audio)]
    if len(columns) != 1 and "audio" not in columns:
        raise ValueError(
            f"recordings 'datasets:{spec}' have {len(columns)} audio columns among {', '.join(features) or 'none'}; "
            "expected one, or one named 'audio' (cast_column('audio', datasets.Audio()) declares it)"
        )
    column = "audio" if "audio" in columns else columns[0]
    genre = next((name for name in GENRE_COLUMNS if name in features), None)
    return AudioDataset(
        rows.with_format(None).cast_column(column, datasets.Audio(decode=False)),
        column,
        _genre_of(genre, features.get(genre)),
    )


def encoded(audio: Mapping[str, Any]) -> Path | bytes:
    """Returns the bytes in a row, or the path of the local file that it names; a remote file is downloaded."""
    if audio["bytes"] is not None:
        return audio["bytes"]
    path = audio["path"]
    if "://" not in path:
        return Path(path)
    import fsspec

    with fsspec.open(path, "rb") as file:
        return file.read()


def _library() -> ModuleType:
    return require("datasets", "datasets")


def _reason(error: BaseException) -> str:
    """Describes an error of the library together with its cause."""
    cause = error.__cause__
    if isinstance(cause, ImportError):  # the library needs torchcodec to build a dataset from loose audio files
        return f"{cause} (pip install torchcodec); or use the folder of audio files directly: data.source=<folder>"
    return f"{error}" if cause is None else f"{error} ({cause})"


def _split_spec(spec: str) -> tuple[str, str | None]:
    name, _, split = spec.partition(":")
    if not name:
        raise ValueError("recordings 'datasets:' has no dataset name; expected datasets:<hub name or folder>[:<split>]")
    return name, split or None


def _open(datasets: ModuleType, name: str, streaming: bool) -> Any:
    """Returns a dataset, or a dictionary of its splits."""
    if not any(Path(name, file).exists() for file in SAVED):
        return datasets.load_dataset(name, streaming=streaming)
    saved = datasets.load_from_disk(name)
    if not streaming:
        return saved
    if isinstance(saved, dict):
        return {split: rows.to_iterable_dataset() for split, rows in saved.items()}
    return saved.to_iterable_dataset()


def _pick_split(splits: Mapping[str, Any], name: str, split: str | None) -> Any:
    wanted = split or ("train" if "train" in splits or len(splits) > 1 else next(iter(splits)))
    if wanted not in splits:
        raise ValueError(f"{name!r} has no split {wanted!r}; present: {', '.join(splits)}")
    return splits[wanted]


def _genre_of(column: str | None, feature: Any) -> Callable[[Mapping[str, Any]], str | None]:
    def genre(row: Mapping[str, Any]) -> str | None:
        value = row[column] if column else None
        if value is None or value == -1:  # −1: unknown class label
            return None
        return feature.int2str(value) if hasattr(feature, "int2str") else str(value)

    return genre
