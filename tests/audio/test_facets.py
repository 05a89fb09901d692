"""The facets of clips whose tempo, pitch, centroid, onsets and level are known."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

from qd.audio.facets import RATE, SILENCE, Facets, clip_facets

TIME = np.arange(4 * RATE) / RATE


def sine(hertz: float, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * TIME)


def pulse(bpm: float, hertz: float = 440.0) -> np.ndarray:
    """Decaying notes of one pitch, one on each beat from half a beat on."""
    period = 60 / bpm
    return sine(hertz) * np.exp(-10 * ((TIME + period / 2) % period))


def noise(level: float, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(len(TIME))


def folded(ratio: float) -> float:
    """Octaves from the nearest whole number of octaves."""
    return abs(np.log2(ratio) - np.round(np.log2(ratio)))


@pytest.mark.parametrize("bpm", [70, 95, 120, 150])
def test_tempo_and_onsets_of_a_pulse(bpm):
    facets = clip_facets(pulse(bpm))
    assert folded(facets.tempo / bpm) < 0.05
    assert facets.onset_rate == pytest.approx(bpm / 60, abs=0.3)


@pytest.mark.parametrize(("hertz", "pitch"), [(440.0, 9), (261.63, 0), (130.81, 0), (466.16, 10)])
def test_chroma_is_the_absolute_pitch_class(hertz, pitch):
    chroma = clip_facets(sine(hertz)).chroma
    assert chroma.argmax() == pitch and chroma[pitch] > 0.9
    assert np.linalg.norm(chroma) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_brightness_of_a_tone_is_its_frequency(hertz):
    assert clip_facets(sine(hertz)).brightness == pytest.approx(hertz, rel=0.05)


def test_brightness_of_white_noise_is_half_the_bandwidth():
    assert clip_facets(noise(0.1)).brightness == pytest.approx(RATE / 4, rel=0.02)


def test_loudness_is_the_root_mean_square():
    assert clip_facets(sine(440.0, level=1.0)).loudness == pytest.approx(-3.01, abs=0.01)
    quiet, loud = clip_facets(noise(0.001)), clip_facets(noise(0.1))
    assert loud.loudness - quiet.loudness == pytest.approx(40.0, abs=0.01)
    assert loud[:3] == pytest.approx(quiet[:3], rel=1e-3)


def test_steady_noise_has_hardly_any_onset():
    assert max(clip_facets(noise(0.1, seed)).onset_rate for seed in range(5)) <= 1.0


SILENT = {
    "zeros": np.zeros(4 * RATE),
    "constant": np.full(4 * RATE, 0.5),
    "one sample": np.ones(1),
    "too quiet": 1e-5 * sine(440.0),
}


@pytest.mark.parametrize("name", SILENT)
def test_silence_and_a_constant_have_defined_facets(name):
    facets = clip_facets(SILENT[name])
    assert facets[:4] == (0.0, 0.0, 0.0, SILENCE)
    assert facets.chroma.tolist() == [0.0] * 12


def test_a_sustained_tone_and_a_single_click_have_no_tempo():
    click = np.zeros(4 * RATE)
    click[RATE] = 1.0
    assert clip_facets(sine(440.0)).tempo == clip_facets(click).tempo == 0.0
    assert clip_facets(sine(440.0)).onset_rate == 0.0 and clip_facets(click).onset_rate == 0.25


@pytest.mark.parametrize("samples", [2, 100, 1500, 5120, 8 * RATE])
def test_any_length_is_finite_without_a_warning(samples):
    audio = np.resize(pulse(120) + noise(0.01), samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facets = clip_facets(audio.astype(np.float32))
    assert all(np.isfinite(value).all() for value in facets)
    assert all(isinstance(value, float) for value in facets[:4])


@pytest.mark.parametrize("audio", [np.zeros((2, 8)), np.zeros(0), np.array([0.0, np.nan])])
def test_bad_audio_is_refused(audio):
    with pytest.raises(ValueError, match="expected"):
        clip_facets(audio)


@pytest.mark.slow
def test_a_clip_takes_less_than_30_ms():
    """Slow only because a busy machine would fail it."""
    clips = [pulse(bpm) for bpm in range(80, 120)]
    first: Facets = clip_facets(clips[0])
    began = time.process_time()
    assert [clip_facets(clip) for clip in clips][0].tempo == first.tempo
    assert (time.process_time() - began) / len(clips) < 0.030
