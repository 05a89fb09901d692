from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qd.data.world.captions import BAD, CLEAN_WORDS, FAULTS, NEGATIVE_PROMPT
from qd.data.world2 import world
from qd.data.world2.captions import ATTRIBUTES, STRATA, attributes, draw_request, write
from qd.data.world2.composer import compose

QUALITY_WORDS = [w.lower() for w in (*BAD, *CLEAN_WORDS, *(word for words in FAULTS.values() for word in words))]


def test_a_clip_is_a_function_of_split_and_index_in_any_process_and_order():
    forward = [world.clip("train", i).audio for i in range(4)]
    backward = [world.clip("train", i).audio for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    script = f"import sys; sys.path.insert(0, {sys.path[0]!r}); from qd.data.world2 import world\n"
    script += "print([world.clip('train', i).caption for i in range(4)])"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert other.strip() == repr([world.clip("train", i).caption for i in range(4)])
    assert not np.array_equal(world.clip("train", 0).audio, world.clip("base", 0).audio)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_pieces_are_long_enough_audible_and_in_range(index):
    c = world.clip("validation", index)
    assert c.piece.seconds >= 16.0
    assert c.audio.dtype == np.float32 and c.audio.shape == (64_000,)
    assert np.abs(c.audio).max() <= 1.0 and c.audio.std() > 0.02
    assert all(n.onset >= 0.0 and 20 <= n.pitch <= 110 for n in c.piece.notes)


def test_clips_of_eight_seconds_work_everywhere():
    assert world.clip("train", 1, seconds=8.0).audio.shape == (128_000,)
    assert [c.audio.size for c in world.chunks("embedder", 1, 2, 8.0)] == [128_000, 128_000]
    assert world.change_drums("validation", 1, 2, 8.0).changed.size == 128_000


def test_captions_mention_quality_only_where_the_recording_has_it():
    clips = [world.clip("validation", i, seconds=0.1) for i in range(400)]
    for c in clips:
        assert not any(word in c.description.lower() for word in QUALITY_WORDS)
        if c.degradation == "clean":
            assert not any(w.lower() in c.caption.lower() for w in (*BAD, *(x for f in FAULTS.values() for x in f)))
    degraded = [c for c in clips if c.degradation != "clean"]
    assert abs(len(degraded) / len(clips) - world.DEGRADED_RATE) < 0.08
    assert any(c.caption == NEGATIVE_PROMPT for c in degraded)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(STRATA))
def test_a_request_fits_the_window_that_it_describes_and_names_as_much_as_its_stratum(seed, stratum):
    rng = np.random.default_rng(seed)
    piece = compose(rng)
    audible = piece.audible(3.0, 4.0) or frozenset({"lead"})
    request = draw_request(piece, audible, stratum, rng)
    named = {name for name, value in vars(request).items() if value is not None}
    least, most = ATTRIBUTES[stratum]
    assert least <= len(named) <= most
    assert request.fits(piece, audible) and piece.genre in request.genres
    assert write(request, rng)[0].isalnum()


def test_a_request_refuses_pieces_that_differ_in_what_it_names():
    rng = np.random.default_rng(0)
    pieces = [compose(np.random.default_rng(i), carelessness=0.0) for i in range(60)]
    audible = frozenset({"lead", "chords", "bass", "drums"})
    for piece in pieces[:10]:
        request = draw_request(piece, audible, "specific", rng)
        for other in pieces:
            has = attributes(other, audible)
            wanted = {name: value for name, value in vars(request).items() if value is not None}
            same = all(v in has["scene"] if name == "scene" else has.get(name) == v for name, v in wanted.items())
            assert request.fits(other, audible) == same
    assert any(not draw_request(pieces[0], audible, "open", rng).fits(p, audible) for p in pieces)


def test_prompt_sets_are_disjoint_and_half_of_each_is_open():
    sets = {s: world.prompts(s, n) for s, n in (("train", 200), ("development", 101), ("heldout", 101))}
    texts = {split: {p.text for p in found} for split, found in sets.items()}
    assert all(len(texts[split]) == len(sets[split]) for split in sets)
    assert not texts["train"] & texts["development"] and not texts["train"] & texts["heldout"]
    assert not texts["development"] & texts["heldout"]
    for found in sets.values():
        assert not any(word in p.text.lower() for p in found for word in QUALITY_WORDS)
        strata = [p.stratum for p in found[:100]]
        assert [strata.count(stratum) for stratum in STRATA] == [50, 25, 25]
    assert world.prompts("heldout", 50) == sets["heldout"][:50]


def test_perfect_clips_differ_and_are_repeatable():
    (request,) = [p.request for p in world.prompts("development", 1)]
    first = list(itertools.islice(world.perfect_clips(request, seed=0), 3))
    again = list(itertools.islice(world.perfect_clips(request, seed=0), 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = next(world.perfect_clips(request, seed=1))
    assert len({clip.tobytes() for clip in (*first, other)}) == 4


def test_players_of_the_preference_split_err_more_often():
    def error_rate(split):
        pieces = [world.clip(split, i, seconds=0.1).piece for i in range(200)]
        return np.mean([p.wrong_note_rate > 0 for p in pieces])

    assert error_rate("preference") > 1.5 * error_rate("validation")


def test_a_change_of_drums_changes_nothing_but_drums():
    added, degraded = set(), set()
    for index in range(24):
        first = world.chunks("validation", index, 2, 1.0)[0]
        change = world.change_drums("validation", index, 2, 1.0)
        assert np.array_equal(change.original, first.audio)
        assert change.changed.shape == first.audio.shape and not np.array_equal(change.changed, first.audio)
        if first.piece.kit is None:
            assert change.added
        added.add(change.added)
        degraded.add(first.degradation)
    assert added == {True, False} and len(degraded) > 3


@pytest.mark.parametrize(("call", "message"), [
    (lambda: world.clip("nowhere", 0), "nowhere"),
    (lambda: world.clip("train", -1), "-1"),
    (lambda: world.clip("train", 0, seconds=17.0), "16"),
    (lambda: world.chunks("train", 0, 5, 4.0), "do not fit"),
    (lambda: world.prompt("codec", 0), "codec"),
])  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
