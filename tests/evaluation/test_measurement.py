"""The file of a measurement: its content, and damage to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qd.evaluation.measurement import Fad, Measurement
from qd.evaluation.points import METRICS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    values = {name: np.arange(2.0) + i for i, name in enumerate(METRICS)}
    path = tmp_path / "0123456789abcdef.npz"
    Measurement(("a", "b"), values, 0.9, np.zeros((1, 2, 8), np.float32), 16_000, 1.0, Fad(0.5, 0.25, "x")).save(path)
    return path


def test_round_trip(file):
    read = Measurement.load(file)
    assert read.prompts == ("a", "b") and read.fad == Fad(0.5, 0.25, "x") and read.audio.shape == (1, 2, 8)
    assert all(np.array_equal(read.per_prompt[name], np.arange(2.0) + i) for i, name in enumerate(METRICS))


def test_the_error_of_a_truncated_file_names_it_and_the_key_to_remove(file):
    whole = file.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"0123456789abcdef\.npz .*remove .* key 0123456789abcdef"):
            Measurement.load(file)


def test_a_file_without_a_metric_or_with_a_wrong_byte_is_an_error(file):
    np.savez(file, prompts=np.array(["a"]))
    with pytest.raises(ValueError, match=r"npz .*'audio"):
        Measurement.load(file)
    file.write_bytes(file.read_bytes().replace(b"prompts", b"pr\xffmpts"))
    with pytest.raises(ValueError, match=r"0123456789abcdef\.npz"):
        Measurement.load(file)
