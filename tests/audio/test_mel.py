from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from qd.audio.mel import LOG_FLOOR, MelSpectrogram


def noisy_chord(samples: int = 8000) -> np.ndarray:
    time = np.arange(samples) / 16_000
    noise = np.random.default_rng(0).normal(size=samples)
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 3000 * time) + 0.02 * noise).astype("f4")


@pytest.mark.parametrize(
    ("n_fft", "window", "hop", "n_mels", "power", "htk", "norm", "center"),
    [
        (2048, 512, 256, 156, 2.0, True, None, True),
        (1280, 1280, 320, 100, 1.0, False, "slaney", True),
        (1024, 800, 200, 64, 2.0, False, "slaney", False),
    ],
)
def test_the_mel_spectrogram_equals_librosa(n_fft, window, hop, n_mels, power, htk, norm, center):
    audio = noisy_chord()
    expected = librosa.feature.melspectrogram(
        y=audio,
        sr=16_000,
        n_fft=n_fft,
        win_length=window,
        hop_length=hop,
        n_mels=n_mels,
        fmin=20,
        fmax=7600,
        power=power,
        htk=htk,
        norm=norm,
        center=center,
    )
    mel = MelSpectrogram(16_000, n_fft, window, hop, n_mels, 20, 7600, power, htk, norm, center=center)
    np.testing.assert_allclose(mel(torch.from_numpy(audio)[None])[0].numpy(), expected, rtol=1e-4, atol=1e-9)


def test_log_is_the_logarithm_of_at_least_the_floor():
    audio = torch.from_numpy(noisy_chord())[None]
    linear = MelSpectrogram(16_000, 512, 512, 256, 40)(audio)
    logarithm = MelSpectrogram(16_000, 512, 512, 256, 40, log=True)(audio)
    torch.testing.assert_close(logarithm, linear.clamp_min(LOG_FLOOR).log())


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_silence_and_its_gradient_are_finite(power):
    audio = torch.zeros(1, 2000, requires_grad=True)
    mel = MelSpectrogram(16_000, 512, 512, 256, 40, power=power, log=True)(audio)
    mel.sum().backward()
    assert mel.isfinite().all()
    assert audio.grad.isfinite().all()


def test_half_precision_audio_and_autocast_give_float32():
    mel = MelSpectrogram(16_000, 512, 512, 256, 40)
    audio = torch.from_numpy(noisy_chord())[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = mel(audio)
    assert torch.equal(under_autocast, mel(audio))
    assert mel(audio.half()).dtype == torch.float32


def test_the_state_dict_is_empty():
    assert MelSpectrogram(16_000, 512, 512, 256, 40).state_dict() == {}


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="window_length=1024"):
        MelSpectrogram(16_000, 512, 1024, 256, 40)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        MelSpectrogram(16_000, 512, 512, 256, 40)(torch.zeros(3))
