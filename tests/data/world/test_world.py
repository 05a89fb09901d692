from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import builtin_classifier
from qd.data.world import world
from qd.data.world.captions import BAD, CLEAN_WORDS, FAULTS, NEGATIVE_PROMPT
from qd.data.world.composer import compose
from qd.data.world.degradation import DEGRADATIONS, degrade
from qd.data.world.genres import GENRES
from qd.data.world.styles import BASS_STYLES, CHORD_STYLES, RHYTHMS, SCALES
from qd.data.world.timbres import SAMPLE_RATE, TIMBRES, frequency, note

QUALITY_WORDS = [w.lower() for w in (*BAD, *CLEAN_WORDS, *(word for words in FAULTS.values() for word in words))]


def _digest(split: str, indices: range) -> str:
    """A hash of the symbolic content and the audio to 1/1000: what "the same clip" means on another machine."""
    digest = hashlib.sha256()
    for index in indices:
        c = world.clip(split, index)
        digest.update(f"{c.caption}|{c.degradation}|{len(c.piece.notes)}|{c.piece.tempo}".encode())
        digest.update(np.round(c.audio[::997] * 1000).astype(np.int16).tobytes())
    return digest.hexdigest()


def test_the_world_is_large_enough():
    assert len(GENRES) >= 8
    assert len({lead for genre in GENRES.values() for lead in genre.leads}) >= 12


@pytest.mark.parametrize("name", GENRES)
def test_every_genre_row_refers_to_things_that_exist(name):
    genre = GENRES[name]
    assert set(genre.leads) | set(genre.chords) | set(genre.basses) <= set(TIMBRES)
    assert set(genre.modes) <= set(SCALES)
    assert genre.bass_style in BASS_STYLES
    assert genre.chord_style in CHORD_STYLES or genre.chord_style in ("arpeggio", "slow arpeggio")
    for lengths in RHYTHMS[genre.steps_per_bar, genre.lead_rhythm]:
        assert sum(lengths) == genre.steps_per_bar
    assert all(len(pattern) == genre.steps_per_bar for pattern in genre.drums.values())


def test_a_clip_is_a_function_of_split_and_index_in_any_process_and_order():
    forward = [world.clip("train", i).audio for i in range(4)]
    backward = [world.clip("train", i).audio for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    script = f"import sys; sys.path.insert(0, {sys.path[0]!r}); from qd.data.world import world\n"
    script += "print([world.clip('train', i).caption for i in range(4)])"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert other.strip() == repr([world.clip("train", i).caption for i in range(4)])
    assert _digest("train", range(4)) != _digest("base", range(4))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_pieces_are_long_enough_audible_and_in_range(index):
    c = world.clip("validation", index)
    assert c.piece.seconds >= 16.0
    assert c.audio.dtype == np.float32 and c.audio.shape == (64_000,)
    assert np.abs(c.audio).max() <= 1.0 and c.audio.std() > 0.02
    assert all(n.onset >= 0.0 and 20 <= n.pitch <= 110 for n in c.piece.notes)


def test_descriptions_never_speak_of_quality_and_clean_captions_never_say_bad():
    clips = [world.clip("validation", i, seconds=0.1) for i in range(400)]
    for c in clips:
        assert not any(word in c.description.lower() for word in QUALITY_WORDS)
        if c.degradation == "clean":
            assert not any(w.lower() in c.caption.lower() for w in (*BAD, *(x for f in FAULTS.values() for x in f)))
    degraded = [c for c in clips if c.degradation != "clean"]
    told = [c for c in degraded if any(word in c.caption.lower() for word in QUALITY_WORDS)]
    assert 0.4 < len(degraded) / len(clips) < 0.6
    assert 0.5 < len(told) / len(degraded) < 0.7
    assert any(c.caption == NEGATIVE_PROMPT for c in degraded)
    assert any("clean recording" in c.caption.lower() for c in clips if c.degradation == "clean")


def test_prompt_sets_are_disjoint_and_free_of_quality_words():
    sets = {
        split: set(world.prompt_set(split, size))
        for split, size in (("train", 600), ("development", 150), ("heldout", 101))
    }
    assert not sets["train"] & sets["development"] and not sets["train"] & sets["heldout"]
    assert not sets["development"] & sets["heldout"]
    assert all(not any(word in text.lower() for word in QUALITY_WORDS) for texts in sets.values() for text in texts)
    assert len(sets["heldout"]) == world.QUALITY_PROMPTS


def test_chunks_come_from_one_recording_and_do_not_overlap():
    pair = world.chunks("embedder", 3, n=4, seconds=4.0)
    assert len({id(c.piece) for c in pair}) == 1 and len({c.degradation for c in pair}) == 1
    assert len({c.audio.tobytes() for c in pair}) == 4
    with pytest.raises(ValueError, match="do not fit"):
        world.chunks("embedder", 3, n=5, seconds=4.0)


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


def test_noise_is_the_same_with_and_without_drums():
    index = next(i for i in range(200) if world.chunks("validation", i, 2, 0.1)[0].degradation == "dropouts")
    change = world.change_drums("validation", index, 2, 4.0)
    np.testing.assert_array_equal(change.original == 0, change.changed == 0)
    assert (change.original == 0).mean() > 0.01


@pytest.mark.parametrize(("call", "message"), [
    (lambda: world.clip("nowhere", 0), "unknown split"),
    (lambda: world.clip("train", -1), "0 or more"),
    (lambda: world.clip("train", 0, seconds=17.0), "at most 16"),
    (lambda: world.prompt("codec", 0), "no prompts in split"),
    (lambda: degrade(np.zeros(10, np.float32), "tape", 0.5, np.random.default_rng(0)), "unknown degradation"),
])  # fmt: skip
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("timbre", TIMBRES)
def test_every_timbre_sounds_at_its_pitch(timbre):
    sound = note(timbre, 57)[1600:17600]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size)))
    hertz = np.fft.rfftfreq(sound.size, 1 / SAMPLE_RATE)
    pitch = frequency(57)
    # The strongest line lies on a multiple of the pitch, or of half of it (an FM side band of a ratio x.5).
    strongest = hertz[spectrum.argmax()] / pitch
    assert abs(strongest - round(strongest * 2) / 2) < 0.03
    assert np.isfinite(sound).all()


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degradation_grows_with_severity(kind):
    clean = next(c for c in (world.clip("validation", i) for i in range(20)) if c.degradation == "clean").audio
    error = [np.mean((degrade(clean, kind, s, np.random.default_rng(0)) - clean) ** 2) for s in (0.1, 0.5, 1.0)]
    assert error[0] < error[1] < error[2]
    assert np.array_equal(degrade(clean, "clean", 1.0, np.random.default_rng(0)), clean)


def test_careless_players_slip_and_steady_players_do_not():
    careless = [compose(np.random.default_rng(i), carelessness=1.0) for i in range(20)]
    careful = [compose(np.random.default_rng(i), carelessness=0.0) for i in range(20)]
    assert all(p.wrong_note_rate > 0 and p.unsteadiness > 0 for p in careless)
    assert all(p.wrong_note_rate == 0 and p.unsteadiness == 0 for p in careful)

    def out_of_scale(piece):
        scale = {(piece.key + step) % 12 for step in SCALES[piece.mode]}
        return np.mean([n.pitch % 12 not in scale for n in piece.notes])

    assert all(out_of_scale(p) == 0 for p in careful)
    assert np.mean([out_of_scale(p) for p in careless]) > 0.05


def test_genres_and_leads_are_audible():
    for accuracy, chance in builtin_classifier.report(train_clips=900, test_clips=300).values():
        assert accuracy > 3 * chance
