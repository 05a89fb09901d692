from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from qd.models.checkpoints import safetensors_files
from qd.models.checkpoints.safetensors_files import StoredTensor, read_header, write_safetensors

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.int32, torch.float32,
    torch.float64, torch.int64,
]  # fmt: skip
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)


def filled(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=generator).to(dtype)


def copied(source, target) -> None:
    """Copies a file piece by piece."""
    tensors, metadata = read_header(source)
    specifications = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    write_safetensors(target, specifications, lambda name: tensors[name].pieces(), metadata)


@given(st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), st.tuples(st.sampled_from(DTYPES), SHAPES)))
def test_writes_the_same_bytes_as_the_library(tmp_path_factory, kinds):
    folder = tmp_path_factory.mktemp("files")
    library = {name: filled(*kind, seed) for seed, (name, kind) in enumerate(kinds.items())}
    for metadata in (None, {"format": "pt"}):
        save_file(library, folder / "library", metadata)
        copied(folder / "library", folder / "ours")
        assert (folder / "ours").read_bytes() == (folder / "library").read_bytes()


def test_pieces_are_read_in_order_and_any_pieces_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_files, "PIECE", 7)
    tensors = {"a": torch.randn(5, 6), "b": torch.randn(14).bfloat16(), "c": torch.tensor(3.0), "d": torch.zeros(0, 3)}
    save_file(tensors, tmp_path / "x")
    header = read_header(tmp_path / "x")
    assert header.metadata == {}
    for name, tensor in tensors.items():
        stored = header.tensors[name]
        pieces = [piece.clone() for piece in stored.pieces()]
        assert [len(piece) for piece in pieces] == [
            min(7, tensor.numel() - first) for first in range(0, tensor.numel(), 7)
        ]
        assert stored.elements == tensor.numel() and stored.dtype == tensor.dtype
        assert torch.equal(torch.cat([*pieces, tensor.new_empty(0)]).reshape(stored.shape), tensor)
    specifications = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_safetensors(tmp_path / "y", specifications, lambda name: tensors[name].flatten().split(4))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(tmp_path / "y").items())


def test_pieces_of_wrong_length_or_type_are_refused(tmp_path):
    kinds = {"x": (torch.float32, (2, 3))}
    with pytest.raises(ValueError, match="x got 5 elements.*2, 3.* 6"):
        write_safetensors(tmp_path / "short", kinds, lambda name: [torch.zeros(5)])
    with pytest.raises(ValueError, match="a piece of x is torch.float64; expected torch.float32"):
        write_safetensors(tmp_path / "kind", kinds, lambda name: [torch.zeros(6, dtype=torch.float64)])


def test_a_file_that_shrinks_during_reading_is_reported(tmp_path):
    (tmp_path / "x").write_bytes(bytes(10))
    with pytest.raises(ValueError, match="ended while it was read"):
        list(StoredTensor(tmp_path / "x", 4, torch.float32, (2,)).pieces())


def test_eight_bit_floats_are_refused(tmp_path):
    save_file({"x": torch.zeros(4).to(torch.float8_e4m3fn)}, tmp_path / "x")
    with pytest.raises(ValueError, match="x is stored as F8_E4M3; expected one of BOOL"):
        read_header(tmp_path / "x")


def test_only_one_piece_is_in_memory(tmp_path):
    elements = 3 * safetensors_files.PIECE
    save_file({"x": torch.arange(elements, dtype=torch.float32)}, tmp_path / "x")
    stored = read_header(tmp_path / "x").tensors["x"]
    addresses = {piece.data_ptr() for piece in stored.pieces()}
    assert len(addresses) == 1 and math.prod(stored.shape) == elements
