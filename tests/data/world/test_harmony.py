"""A piece in the other mode: the same degrees, another third, everything else unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qd.data.world.composer import compose
from qd.data.world.harmony import in_other_mode
from qd.data.world.styles import SCALES
from qd.data.world2.composer import compose as compose2
from qd.data.world2.patterns import SCALES as SCALES2
from qd.data.worlds import EDITIONS


@pytest.mark.parametrize(("compose", "scales"), [(compose, SCALES), (compose2, SCALES2)])
def test_notes_keep_their_degree_and_change_their_third(compose, scales):
    for seed in range(12):
        piece = compose(np.random.default_rng(seed), carelessness=0.0)
        other = in_other_mode(piece, scales)
        minor = scales[piece.mode][2] == 3
        assert other.mode == ("major" if minor else "minor")
        assert other.notes != piece.notes and replace(other, mode=piece.mode, notes=piece.notes) == piece
        for before, after in zip(piece.notes, other.notes, strict=True):
            degree = scales[piece.mode].index((before.pitch - piece.key) % 12)
            assert (after.pitch - piece.key) % 12 == scales[other.mode][degree]
            assert abs(after.pitch - before.pitch) <= 1 and replace(after, pitch=before.pitch) == before


def test_wrong_notes_stay():
    piece = compose(np.random.default_rng(0), carelessness=0.0)
    wrong = replace(piece, mode="major", key=0, notes=(replace(piece.notes[0], pitch=61),))
    assert in_other_mode(wrong, SCALES).notes == wrong.notes


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_original_of_a_change_of_mode_is_that_of_chunks(edition):
    world, unchanged = EDITIONS[edition], 0
    for index in range(6):
        original, changed = world.change_mode("validation", index)
        np.testing.assert_array_equal(original, world.chunks("validation", index)[0].audio)
        assert changed.shape == original.shape
        unchanged += np.array_equal(changed, original)
    assert unchanged < 2  # a window can be without thirds, sixths and sevenths
