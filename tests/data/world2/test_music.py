from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qd.data.world2.composer import compose
from qd.data.world2.drumming import with_drums, without_drums
from qd.data.world2.genres import GENRES
from qd.data.world2.kits import DRUMS, KITS, Kit, hit
from qd.data.world2.melody import HIGHEST, LOWEST, develop, motif
from qd.data.world2.patterns import ARPEGGIO_STYLES, BASS_STYLES, CHORD_STYLES, RHYTHMS, SCALES
from qd.data.world2.synthesiser import render
from qd.data.world2.timbres import VOICES
from qd.data.world2.voices import SAMPLE_RATE, Tone, frequency, note
from qd.data.world2.words import GENRE_NOUNS, MOODS, SCENES


@pytest.mark.parametrize("name", GENRES)
def test_every_genre_row_refers_to_things_that_exist(name):
    genre = GENRES[name]
    assert set(genre.leads) | set(genre.chords) | set(genre.basses) <= set(VOICES)
    assert set(genre.modes) <= set(SCALES) and name in GENRE_NOUNS
    assert set(genre.bass_styles) <= set(BASS_STYLES)
    assert set(genre.chord_styles) <= set(CHORD_STYLES) | set(ARPEGGIO_STYLES)
    assert genre.kit is None or genre.kit in KITS
    for density in genre.densities:
        assert all(sum(lengths) == genre.steps_per_bar for lengths in RHYTHMS[genre.steps_per_bar][density])
    for groove in genre.grooves:
        assert set(groove) <= set(DRUMS) and {len(pattern) for pattern in groove.values()} == {genre.steps_per_bar}


def test_every_scene_refers_to_things_that_exist():
    for scene in SCENES:
        assert set(scene.genres) <= set(GENRES) and set(scene.moods) <= set(MOODS) and len(scene.texts) >= 3


@pytest.mark.parametrize("timbre", VOICES)
def test_every_voice_sounds_at_its_pitch_with_every_tone(timbre):
    for tone in (Tone(), Tone(brightness=1.0, detune=12.0, motion_rate=2.0), Tone(brightness=-1.0, vibrato=0.0)):
        sound = note(VOICES[timbre], tone, 57, 1.0)[800:16_800]
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size)))
        strongest = np.fft.rfftfreq(sound.size, 1 / SAMPLE_RATE)[spectrum.argmax()] / frequency(57)
        ratios = VOICES[timbre].ratios or range(1, 41)
        assert min(abs(strongest - ratio) for ratio in ratios) < 0.04
        assert np.isfinite(sound).all()


def test_a_brighter_tone_has_more_high_frequencies():
    def centroid(tone, voice):
        spectrum = np.abs(np.fft.rfft(note(VOICES[voice], tone, 60, 0.5)))
        return (spectrum * np.arange(spectrum.size)).sum() / spectrum.sum()

    for voice in ("violin", "saw synth", "trumpet", "piano", "vibraphone"):
        assert centroid(Tone(brightness=1.0), voice) > 1.02 * centroid(Tone(brightness=-1.0), voice)


@pytest.mark.parametrize("drum", DRUMS)
def test_drums_are_finite_with_unit_peak_and_differ_among_kits(drum):
    hits = [hit(drum, Kit(kind, pitch=pitch)) for kind in KITS for pitch in (0.8, 1.2)]
    for sound in hits:
        assert np.isfinite(sound).all() and np.abs(sound).max() == pytest.approx(1.0)
    assert not np.allclose(hits[0], hits[4])


def test_developed_motifs_stay_in_range_and_in_their_bar():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tones = motif("busy", 16, rng)
        developed = develop(tones, rng)
        assert developed and all(LOWEST <= t.degree <= HIGHEST for t in developed)
        assert all(0 <= t.step < t.step + t.length <= 16 for t in developed)


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


def test_a_window_continues_the_one_before():
    piece = compose(np.random.default_rng(3), carelessness=0.0)
    whole, later = render(piece, 4.0, 4.0), render(piece, 6.0, 2.0)
    # The same music at another loudness: each clip is scaled to the same level.
    assert np.corrcoef(whole[32_000:], later)[0, 1] > 0.95


def test_without_drums_nothing_else_changes():
    composed = (compose(np.random.default_rng(seed)) for seed in range(100))
    for piece in [p for p in composed if p.hits][:5]:
        silent = without_drums(piece)
        assert silent.hits == () and silent.kit is None
        assert replace(silent, kit=piece.kit, hits=piece.hits) == piece


@pytest.mark.parametrize("genre", GENRES)
def test_added_drums_are_in_every_bar_and_of_the_metre(genre):
    piece = compose(np.random.default_rng(5), 0.0, (genre,))
    drummed = with_drums(piece, np.random.default_rng(0))
    row = GENRES[genre]
    kits = {other.kit for other in GENRES.values() if other.grooves and other.steps_per_bar == row.steps_per_bar}
    assert drummed.kit.kind in ({row.kit} if row.grooves else kits)
    assert piece.seconds - 4 < max(h.onset for h in drummed.hits) < piece.seconds
    assert drummed == with_drums(piece, np.random.default_rng(0))
