"""Reads and writes safetensors files piece by piece: memory never holds a model, or even a complete tensor.

The library reads lazily, but through a memory map, whose pages count as memory of the process until the system reclaims
them, and it cannot write one tensor after another. The format is simple enough to handle directly: the length of the
header (8 bytes, little endian), the header (JSON: type, shape and offsets of each tensor, and metadata), then the
tensors without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

# In the library's order: it writes tensors of the last type first.
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_RANKS = {dtype: rank for rank, dtype in enumerate(_NAMES)}

PIECE = 2**20
"""Elements per piece: 4 MiB of float32, which fits into a processor's cache."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        file: File that contains the tensor.
        start: Offset of its first byte.
        dtype: Type of its elements.
        shape: Shape; the elements are stored row by row.
    """

    file: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def pieces(self) -> Iterator[Tensor]:
        """Yields the elements in order as flat tensors of ``PIECE``; a piece is only valid until the next one."""
        buffer = bytearray(min(PIECE, self.elements) * self.dtype.itemsize)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            for first in range(0, self.elements, PIECE):
                count = min(PIECE, self.elements - first)
                _fill(memoryview(buffer)[: count * self.dtype.itemsize], file)
                yield torch.frombuffer(buffer, dtype=self.dtype, count=count)


class Header(NamedTuple):
    """Header of a file: its tensors by name, and its metadata."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


def read_header(file: Path) -> Header:
    """Reads the header of a valid file, see ``qd.models.checkpoints.resolver.checkpoint_problems``.

    Raises:
        ValueError: a tensor has an unsupported type, such as an 8-bit float.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        table = json.loads(stream.read(length))
    metadata = table.pop("__metadata__", {})
    for name, row in table.items():
        if row["dtype"] not in _DTYPES:
            raise ValueError(f"{file}: {name} is stored as {row['dtype']}; expected one of {', '.join(_DTYPES)}.")
    tensors = {
        name: StoredTensor(file, 8 + length + row["data_offsets"][0], _DTYPES[row["dtype"]], tuple(row["shape"]))
        for name, row in table.items()
    }
    return Header(tensors, metadata)


def write_safetensors(
    file: Path,
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    pieces: Callable[[str], Iterable[Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file piece by piece; its bytes equal those of the library's ``save_file``.

    Args:
        file: Output file.
        tensors: Type and shape of each tensor, by name.
        pieces: Function from a tensor's name to its elements in order, as flat pieces of any length.
        metadata: Texts by name, such as ``{"format": "pt"}``, which transformers requires.

    Raises:
        ValueError: the pieces of a tensor have another type, or do not add up to its length.
    """
    order = sorted(tensors, key=lambda name: (-_RANKS[tensors[name][0]], name))
    with file.open("wb") as stream:
        stream.write(_header(tensors, order, metadata))
        for name in order:
            dtype, shape = tensors[name]
            written = 0
            for piece in pieces(name):
                if piece.dtype != dtype:
                    raise ValueError(f"{file}: a piece of {name} is {piece.dtype}; expected {dtype}.")
                stream.write(piece.view(torch.uint8).numpy())
                written += len(piece)
            if written != math.prod(shape):
                raise ValueError(f"{file}: {name} got {written} elements; its shape {shape} has {math.prod(shape)}.")


def _header(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], order: Iterable[str], metadata: Mapping[str, str] | None
) -> bytes:
    """Returns the header's length and JSON, padded with spaces so that the tensors start at a multiple of 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        dtype, shape = tensors[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        table[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _fill(view: memoryview, file: RawIOBase) -> None:
    """Reads until the view is full; a single read may return less."""
    while view:
        count = file.readinto(view)
        if not count:
            raise ValueError(f"{file.name} ended while it was read; was it changed in the meantime?")
        view = view[count:]
