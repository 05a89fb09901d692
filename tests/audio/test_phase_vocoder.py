"""The phase vocoder against librosa's, and against tones and clicks with known results."""

from __future__ import annotations

from fractions import Fraction

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from qd.audio import phase_vocoder
from qd.audio.phase_vocoder import N_FFT, change_tempo_and_pitch, samples_read, shift_pitch, stretch

RATE = 16_000


def tone(hertz: float, samples: int) -> Tensor:
    return torch.sin(2 * torch.pi * hertz * torch.arange(samples, dtype=torch.float64) / RATE).float()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def spectrum(audio: Tensor) -> tuple[Tensor, float]:
    """Returns magnitudes relative to the highest one, and its frequency in Hz. Bins are 1/8 Hz apart."""
    window = torch.hann_window(len(audio), dtype=torch.float64).square()
    magnitude = torch.fft.rfft(audio.double() * window, 8 * RATE).abs()
    peak = int(magnitude.argmax())
    return magnitude / magnitude[peak], peak / 8


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.93, 1.0, 1.1, 1.25, 2.0])
def test_it_stretches_like_librosa(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_vocoder, "ANCHOR", 0)  # librosa's phases start at the first frame
    audio, rate = noise(12_000), float(np.float32(rate))
    ours = stretch(audio[None], torch.tensor([rate]), round(12_000 / rate))[0].numpy()
    theirs = librosa.effects.time_stretch(audio.double().numpy(), rate=rate, n_fft=N_FFT, hop_length=N_FFT // 4)
    assert len(ours) == len(theirs)
    # librosa's last window has the phases of the padding.
    np.testing.assert_allclose(ours[:-N_FFT], theirs[:-N_FFT], atol=3e-5)


def test_phases_differ_from_librosa_by_a_constant_of_each_bin() -> None:
    spectra = phase_vocoder._analyse(noise(1, 12_000))
    ours = phase_vocoder._resample_frames(spectra, torch.tensor([0.8]), 50)[0].T.numpy().astype(np.complex128)
    theirs = librosa.phase_vocoder(
        spectra[0].T.numpy().astype(np.complex128), rate=float(np.float32(0.8)), hop_length=256
    )
    difference = ours * theirs[:, :50].conj()
    difference /= np.abs(difference)
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-4)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs[:, :50]), rtol=1e-5, atol=1e-5)
    anchor = phase_vocoder.ANCHOR
    frame = spectra[0, int(anchor * 0.8)].numpy()
    np.testing.assert_allclose(ours[:, anchor] / np.abs(ours[:, anchor]), frame / np.abs(frame), atol=1e-4)


def test_rate_one_leaves_the_clip_unchanged() -> None:
    audio = noise(2, 9_000)
    torch.testing.assert_close(stretch(audio, torch.ones(2), 8_000), audio[:, :8_000], atol=1e-5, rtol=0)


def test_tempo_changes_time_and_keeps_pitch() -> None:
    audio = tone(1000, 32_000)
    audio[:12_000] = 0  # the tone begins at 0.75 s
    rates = torch.tensor([0.8, 1.0, 1.25])
    for out, rate in zip(stretch(audio.expand(3, -1), rates, 24_000), rates.tolist(), strict=True):
        begin = int((out.abs() > 0.5).nonzero()[0])
        assert abs(begin - 12_000 / rate) < N_FFT
        assert spectrum(out[begin + N_FFT :])[1] == pytest.approx(1000, abs=0.5)


@pytest.mark.parametrize("hertz", [220.0, 1000.0, 4000.0, 6700.0])
def test_pitch_multiplies_frequencies_and_keeps_level_and_length(hertz: float) -> None:
    semitones = torch.tensor([-3.0, -1.37, 0.0, 2.0])
    out = shift_pitch(tone(hertz, 26_000).expand(4, -1), semitones, 20_000)
    assert out.shape == (4, 20_000) and out.dtype == torch.float32
    for clip, shift in zip(out, semitones.tolist(), strict=True):
        magnitude, measured = spectrum(clip[2_000:18_000])
        expected = hertz * 2 ** (shift / 12)
        if expected > 0.94 * RATE / 2:
            continue  # in the slope of the low-pass
        assert 1200 * abs(np.log2(measured / expected)) < 1.5  # cents
        near = slice(max(0, int(8 * (measured - 10))), int(8 * (measured + 10)))
        magnitude[near] = 0
        assert 20 * magnitude.max().log10() < -40
        assert clip[2_000:18_000].square().mean().sqrt() == pytest.approx(0.5**0.5, rel=0.01)


def test_frequencies_beyond_the_output_do_not_alias() -> None:
    out = shift_pitch(tone(7_000, 26_000)[None], torch.tensor([3.0]), 20_000)  # would be at 8,324 Hz
    assert 20 * out[:, 2_000:18_000].square().mean().sqrt().log10() < -60


def test_tempo_and_pitch_change_together() -> None:
    audio = tone(1000, 30_000)
    audio[:10_000] = 0
    tempo, ratio = torch.tensor([0.8, 1.25]), torch.tensor([1.19, 0.84])
    for out, fast, high in zip(
        change_tempo_and_pitch(audio.expand(2, -1), tempo, ratio, 22_000), tempo.tolist(), ratio.tolist(), strict=True
    ):
        begin = int((out.abs() > 0.5).nonzero()[0])
        assert abs(begin - 10_000 / fast) < N_FFT
        assert spectrum(out[begin + N_FFT : begin + 8_000])[1] == pytest.approx(1000 * high, rel=1e-3)


@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_clips_have_separate_factors_in_any_batch(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, tempo, ratio = noise(3, 6_000), torch.tensor([0.8, 1.0, 1.2]), torch.tensor([1.1, 0.9, 1.0])
    alone = [change_tempo_and_pitch(audio[i, None], tempo[i, None], ratio[i, None], 4_000, 1.1) for i in range(3)]
    monkeypatch.setitem(phase_vocoder.CLIPS_AT_ONCE, "cpu", at_once)
    together = change_tempo_and_pitch(audio, tempo, ratio, 4_000)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_autocast_does_not_change_the_result() -> None:
    numbers = torch.tensor([1.1, 0.9])
    plain = change_tempo_and_pitch(noise(2, 6_000), numbers, numbers, 4_000)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(change_tempo_and_pitch(noise(2, 6_000), numbers, numbers, 4_000), plain)


def test_silence_and_the_time_after_the_end_are_silent() -> None:
    numbers = torch.tensor([1.5, 0.7])
    audio = torch.stack([torch.zeros(4_000), noise(4_000)])
    for out in (stretch(audio, numbers, 9_000), change_tempo_and_pitch(audio, numbers, numbers, 9_000)):
        assert out.shape == (2, 9_000) and out.isfinite().all()
        assert out[0].abs().max() == 0 and out[1].abs().max() > 0.1
        assert out[1, round(4_000 / 0.7) + 2 * N_FFT :].abs().max() == 0


@pytest.mark.parametrize(("tempo", "semitones"), [(1.25, -3.0), (1.25, 3.0), (0.8, -3.0), (1.0, 0.0)])
def test_samples_read_bounds_the_samples_that_the_output_depends_on(tempo: float, semitones: float) -> None:
    ratio = 2 ** (semitones / 12)
    needed = samples_read(5_000, tempo, ratio)
    audio = noise(1, needed + 2_000)
    cut = audio.clone()
    cut[:, needed:] = 0
    for change in (
        lambda x: change_tempo_and_pitch(x, torch.tensor([tempo]), torch.tensor([ratio]), 5_000),
        lambda x: stretch(x, torch.tensor([tempo]), 5_000),
    ):
        torch.testing.assert_close(change(audio), change(cut), atol=1e-6, rtol=0)
    assert needed - 5_000 * tempo < 2 * N_FFT


def test_positions_are_exact() -> None:
    step = torch.tensor([1.2345678, 0.8])
    whole, share = phase_vocoder._positions(step, 70_000)
    for row in range(2):
        exact = Fraction(step[row].item()) * 69_999
        assert whole[row, -1] == exact.numerator // exact.denominator
        assert share[row, -1].item() == pytest.approx(float(exact % 1), abs=1e-7)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 100\).*\(3,\)"):
        stretch(torch.zeros(2, 100), torch.ones(3), 50)
    with pytest.raises(ValueError, match="samples_out=0"):
        shift_pitch(torch.zeros(2, 100), torch.ones(2), 0)
