"""Clips of real files in every format equal parts of the whole decoded file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from qd.data.audio_files import BadAudioError, ClipShape, check, check_whole, read_all, read_pair
from tests.data.sounds import RATE, cut, headerless_mp3, sound, write

SHAPE = ClipShape(RATE // 2, RATE)


def locate(whole: np.ndarray, clip: np.ndarray) -> tuple[int, float]:
    """Returns the position of the clip in ``whole``, by least squares, and the largest difference there."""
    energy = np.concatenate([[0.0], np.cumsum(whole.astype(np.float64) ** 2)])
    distance = energy[len(clip) :] - energy[: -len(clip)] - 2 * scipy.signal.correlate(whole, clip, "valid", "fft")
    start = int(distance.argmin())
    return start, float(np.abs(whole[start : start + len(clip)] - clip).max())


@pytest.mark.parametrize("ending", [".wav", ".aiff", ".flac", ".ogg", ".mp3", ".opus"])
def test_clips_are_parts_of_the_file_that_do_not_overlap(ending: str, tmp_path: Path):
    path = write(tmp_path / f"a{ending}", sound(3, 3.0))
    check(path, SHAPE)
    whole = soundfile.read(path, dtype="float32")[0]
    starts = []
    for seed in range(8):
        pair = read_pair(path, SHAPE, np.random.default_rng(seed))
        assert pair.shape == (2, SHAPE.samples) and pair.dtype == np.float32
        (first, error), (second, other_error) = (locate(whole, clip) for clip in pair)
        assert max(error, other_error) < 1e-6  # seeking is exact, also in MP3
        assert abs(first - second) >= SHAPE.samples
        starts.append((first, second))
    assert len(set(starts)) == 8 and {first < second for first, second in starts} == {True, False}
    np.testing.assert_array_equal(read_pair(path, SHAPE, np.random.default_rng(7)), pair)
    np.testing.assert_array_equal(read_pair(path.read_bytes(), SHAPE, np.random.default_rng(7)), pair)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_rate_is_resampled(rate: int, tmp_path: Path):
    path = write(tmp_path / "a.wav", sound(0, 2.0, rate), rate)
    whole = scipy.signal.resample_poly(sound(0, 2.0, rate), RATE, rate)
    for seed in range(3):
        for clip in read_pair(path, SHAPE, np.random.default_rng(seed)):
            start, error = locate(whole, clip)
            # A clip may start between two samples of the whole; this is the largest change within half a sample.
            assert error < 0.5 * np.pi * (200 + 2 * 60 * 2.0) / RATE + 1e-3
            # No fade at the clip's ends, as a filter without the margin would cause.
            peaks = np.abs(clip[:40]).max(), np.abs(clip[-40:]).max()
            expected = np.abs(whole[start : start + 40]).max(), np.abs(whole[start + len(clip) - 40 :][:40]).max()
            np.testing.assert_allclose(peaks, expected, atol=0.06)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(channels: int, tmp_path: Path):
    audio = np.stack([sound(number, 1.0) for number in range(channels)], axis=1)
    path = write(tmp_path / "a.wav", audio)
    pair = read_pair(path, SHAPE, np.random.default_rng(0))  # two halves: only their order is random
    joined = np.concatenate(sorted(pair, key=lambda clip: abs(clip[0])))
    np.testing.assert_allclose(joined, audio.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("ending", [".wav", ".aiff", ".flac", ".ogg", ".mp3", ".opus"])
def test_a_cut_file_is_truncated(ending: str, tmp_path: Path):
    path = cut(write(tmp_path / f"a{ending}", sound(0, 6.0)), 0.6)
    for read in (lambda: check(path, SHAPE), lambda: check_whole(path), lambda: read_all(path)):
        with pytest.raises(BadAudioError, match="truncated: "):
            read()


def test_an_mp3_file_whose_length_is_an_estimate_is_whole(tmp_path: Path):
    path, samples = headerless_mp3(tmp_path / "a.mp3")
    with soundfile.SoundFile(path) as file:
        assert file.frames > samples + 44_100  # the estimate is too long
    shape = ClipShape(44_100, 44_100)
    for source in (path, path.read_bytes()):
        check(source, shape)
        audio, rate = read_all(source)
        assert rate == 44_100 and abs(len(audio) - samples) <= 1152
        for seed in range(8):
            for clip in read_pair(source, shape, np.random.default_rng(seed)):
                assert locate(audio, clip)[1] < 1e-6


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path):
    path = write(tmp_path / "a.wav", sound(0, 2.0)).rename(tmp_path / os.fsdecode(b"bad\xff.wav"))
    check(path, SHAPE)
    assert read_pair(path, SHAPE, np.random.default_rng(0)).shape == (2, SHAPE.samples)
    assert len(read_all(path)[0]) == 2 * RATE


def test_floats_scaled_like_integers_are_refused(tmp_path: Path):
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, 4.0 * sound(0, 2.0), RATE, subtype="FLOAT")  # 6 dB above full scale: a hot mix
    assert np.abs(read_all(loud)[0]).max() > 1.9
    soundfile.write(loud, 32_768 * sound(0, 2.0), RATE, subtype="FLOAT")
    for read in (lambda: read_all(loud), lambda: read_pair(loud, SHAPE, np.random.default_rng(0))):
        with pytest.raises(BadAudioError, match=r"wrong scale: .* a sample of 16,\d+; expected .* from −1 to 1"):
            read()


def test_a_pipe_is_unreadable_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(BadAudioError, match="unreadable: .*pipe"):
        check(tmp_path / "a.wav", SHAPE)


@pytest.mark.parametrize("ending", [".flac", ".mp3"])
def test_decoding_detects_a_clip_beyond_the_cut(ending: str, tmp_path: Path):
    path = cut(write(tmp_path / f"a{ending}", sound(0, 1.001)), 0.6)
    with pytest.raises(BadAudioError, match="truncated|corrupt"):
        read_pair(path, SHAPE, np.random.default_rng(0))


def test_a_wav_header_of_unknown_length_is_accepted(tmp_path: Path):
    path = write(tmp_path / "a.wav", sound(0, 2.0))
    data = bytearray(path.read_bytes())
    size = data.index(b"data") + 4
    data[size : size + 4] = b"\xff" * 4
    path.write_bytes(data)
    check(path, SHAPE)


@pytest.mark.parametrize(
    ("name", "content"), [("empty.wav", b""), ("text.flac", b"no audio at all\n" * 50), ("zeros.ogg", bytes(5_000))]
)
def test_a_file_without_audio_is_unreadable(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    for read in (lambda: check(tmp_path / name, SHAPE), lambda: read_pair(content, SHAPE, np.random.default_rng(0))):
        with pytest.raises(BadAudioError, match="unreadable: ") as error:
            read()
        assert error.value.cause == "unreadable"
    with pytest.raises(BadAudioError, match="unreadable: "):
        check(tmp_path / "missing.wav", SHAPE)


def test_short_silent_and_damaged_files_have_different_causes(tmp_path: Path):
    short = write(tmp_path / "short.wav", sound(0, 0.99))
    with pytest.raises(BadAudioError, match="too short: 0.99 s.* 1.00 s"):
        check(short, SHAPE)
    silent = write(tmp_path / "silent.wav", 1e-4 * sound(0, 3.0))
    check(silent, SHAPE)
    with pytest.raises(BadAudioError, match="silent: .*-60 dB"):
        read_pair(silent, SHAPE, np.random.default_rng(0))
    broken = write(tmp_path / "broken.wav", np.full(RATE * 3, np.nan))
    with pytest.raises(BadAudioError, match="corrupt: .*not finite"):
        read_pair(broken, SHAPE, np.random.default_rng(0))
    flac = write(tmp_path / "broken.flac", np.random.default_rng(0).uniform(-1, 1, RATE * 4))
    data = bytearray(flac.read_bytes())
    data[2_000:-20_000] = np.random.default_rng(1).bytes(len(data) - 22_000)
    flac.write_bytes(data)
    with pytest.raises(BadAudioError, match="corrupt: "):
        read_pair(flac, ClipShape(2 * RATE, RATE), np.random.default_rng(0))


def test_recording_with_a_pause_is_not_silent(tmp_path: Path):
    audio = sound(0, 4.0)
    audio[RATE : 2 * RATE] = 0
    path = write(tmp_path / "a.wav", audio)
    for seed in range(10):
        pair = read_pair(path, ClipShape(RATE // 4, RATE), np.random.default_rng(seed))
        assert np.abs(pair).max(axis=1).min() >= 1e-3
