from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from qd.data.library import held_out_score
from qd.data.world import world
from qd.data.world2 import world as world2
from qd.evaluation.embedder.heldout import LONGER, open_heldout
from tests.data.sounds import cut

SECONDS = 0.32


def test_builtin_recordings_are_from_the_validation_split():
    heldout = open_heldout("builtin", 6, 16_000, SECONDS, 0.05)
    assert len(heldout) == 6 and heldout.sample_rate == 16_000
    batch = heldout.batch(range(2, 5))
    for row, index in enumerate((2, 3, 4)):
        expected = np.stack([clip.audio for clip in world.chunks("validation", index, 2, SECONDS)])
        np.testing.assert_array_equal(batch.pairs[row], expected)
    assert torch.equal(batch.drums.original, batch.pairs[:, 0])
    assert batch.longer.shape == (3, LONGER * SECONDS * 16_000)
    assert batch.genres == [world.chunks("validation", i, 2, SECONDS)[0].piece.genre for i in (2, 3, 4)]


def test_builtin_recordings_are_of_the_edition():
    heldout = open_heldout("builtin", 6, 16_000, SECONDS, 0.05, 2)
    batch = heldout.batch(range(2, 4))
    expected = np.stack([clip.audio for clip in world2.chunks("validation", 3, 2, SECONDS)])
    np.testing.assert_array_equal(batch.pairs[1], expected)
    np.testing.assert_array_equal(batch.other_mode[1], world2.change_mode("validation", 3, 2, SECONDS)[1])
    training = world2.chunks("embedder", 1, 2, SECONDS)[0].audio
    np.testing.assert_array_equal(heldout.training_clips()[1], training)


def test_training_clips_are_from_another_split():
    heldout = open_heldout("builtin", 3, 16_000, SECONDS, 0.05)
    expected = [world.chunks("embedder", index, 2, SECONDS)[0].audio for index in range(3)]
    np.testing.assert_array_equal(heldout.training_clips(), np.stack(expected))


def test_long_clips_leave_out_tempo():
    heldout = open_heldout("builtin", 2, 16_000, 7.0, 0.05)
    assert heldout.batch(range(1)).longer is None
    assert any("Tempo is left out" in note for note in heldout.notes)
    with pytest.raises(ValueError, match="9.0 s do not fit"):
        open_heldout("builtin", 2, 16_000, 9.0, 0.05)


class Library:
    """A fake opened folder: recording i is a constant; 7 recordings are held out, and 6 of them are long."""

    def __init__(self, **options) -> None:
        self.options = options
        self.size = 90 if options["split"] == "train" else 7 if options["seconds"] <= 2 else 6
        self.samples = round(options["seconds"] * options["sample_rate"])

    def genre(self, index: int) -> str | None:
        return "ab"[index % 2]

    def pair(self, index: int) -> np.ndarray:
        assert index < self.size
        return np.full((2, self.samples), index if self.options["split"] == "validation" else -1, np.float32)


@pytest.fixture
def library(monkeypatch):
    """Fake ``open_recordings`` that notes its calls; ``longest`` is the longest clip of the recordings, in seconds."""

    def open_recordings(source, **options):
        open_recordings.calls.append((source, options))
        if options["seconds"] > open_recordings.longest:
            raise ValueError("all recordings are too short")
        return Library(**options)

    open_recordings.longest, open_recordings.calls = 99.0, []
    module = ModuleType("qd.data.library")
    module.open_recordings = open_recordings
    monkeypatch.setitem(sys.modules, "qd.data.library", module)
    return open_recordings


def test_a_library_gives_its_held_out_share(library):
    heldout = open_heldout("my music", 7, 22_050, 2.0, 0.1)
    assert len(heldout) == 7 and not any("requested" in note for note in heldout.notes)
    batch = heldout.batch(range(4, 7))
    assert batch.pairs[:, 0, 0].tolist() == [4, 5, 6] and batch.pairs.shape == (3, 2, 44_100)
    assert batch.longer[:, 0].tolist() == [4, 5] and batch.longer.shape[1] == round(44_100 * LONGER)
    assert batch.genres == list("aba") and batch.drums is None
    assert (heldout.training_clips() == -1).all()
    source, options = library.calls[0]
    assert source == "my music"
    assert (
        options.items() >= {"split": "validation", "sample_rate": 22_050, "validation_share": 0.1, "pairs": 7}.items()
    )
    assert any("removed is left out" in note for note in heldout.notes)


def test_notes_say_what_a_small_library_lacks(library):
    library.longest = 2.0
    heldout = open_heldout("x.csv", 256, 16_000, 2.0, 0.05)
    assert len(heldout) == 7 and heldout.batch(range(1)).longer is None
    assert any("256 recordings were requested; the held-out share has 7" in note for note in heldout.notes)
    assert any("Tempo is left out" in note for note in heldout.notes)


def test_a_bad_recording_is_reported_once(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(24):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.standard_normal(16_000 * 3), 16_000)
    held_out = [number for number in range(24) if held_out_score(f"{number}.wav") < 0.5]
    cut(tmp_path / f"{held_out[0]}.wav", 0.9)
    heldout = open_heldout(str(tmp_path), 24, 16_000, 1.0, 0.5)
    assert len(heldout) == len(held_out) - 1 and heldout.longer is not None
    heldout.training_clips()
    assert capsys.readouterr().err.count("recordings are skipped: 1 truncated") == 1


def test_real_files_are_read(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        audio = 0.1 * rng.standard_normal(16_000 * 3)
        soundfile.write(tmp_path / f"{number}.flac", audio, 16_000)
    heldout = open_heldout(str(tmp_path), 4, 16_000, 1.0, 0.5)
    batch = heldout.batch(range(len(heldout)))
    assert 2 <= len(heldout) <= 4 and batch.pairs.shape == (len(heldout), 2, 16_000)
    assert not torch.equal(batch.pairs[0, 0], batch.pairs[1, 0]) and batch.longer.shape[1] == 20_000
    assert heldout.training_clips().shape == (len(heldout), 16_000)
