"""The file of a measurement: its content, and damage to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qd.evaluation.columns import METRICS, OPTIONAL_METRICS
from qd.evaluation.measurement import Fad, Measurement
from qd.evaluation.results import Results


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


def test_optional_metrics_and_the_kernel_distance_are_kept(file):
    read = Measurement.load(file)
    assert not read.has_facets and read.fad.kernel is None
    values = {**read.per_prompt, **{name: np.array([np.nan, 0.5]) for name in OPTIONAL_METRICS}}
    replace(read, per_prompt=values, fad=Fad(0.5, 0.25, "x", 1.5)).save(file)
    again = Measurement.load(file)
    assert again.has_facets and again.fad == Fad(0.5, 0.25, "x", 1.5)
    np.testing.assert_array_equal(again.per_prompt["diversity_effective"], [np.nan, 0.5])


def test_intervals_leave_out_undefined_values_of_optional_metrics_only(file):
    read = Measurement.load(file)
    values = np.array([np.nan, 0.5])
    intervals = replace(read, per_prompt={**read.per_prompt, "diversity_clean": values}).intervals()
    assert list(intervals) == [*METRICS, "diversity_clean"] and np.isnan(intervals["diversity_clean"]).all()
    with pytest.raises(ValueError, match="not finite"):
        replace(read, per_prompt={**read.per_prompt, "quality": values}).intervals()


def test_results_keep_what_only_an_earlier_measurement_has(tmp_path, file):
    results, plain = Results(tmp_path / "points.jsonl"), replace(Measurement.load(file), fad=None)
    facets = replace(plain, per_prompt={**plain.per_prompt, **{name: np.ones(2) for name in OPTIONAL_METRICS}})
    results.save("k", replace(plain, fad=Fad(0.5, 0.25, "x", 1.5)))
    assert results.recall("k") and results.recall("k", facets=True) is None
    results.save("k", facets)
    assert results.recall("k", "x", facets=True).fad.kernel == 1.5
    results.save("k", plain)
    assert results.recall("k", "x", facets=True) and results.recall("k", "y", facets=True) is None


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
