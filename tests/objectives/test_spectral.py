from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from qd.objectives.spectral import LOG_FLOOR, magnitude_spectrogram, multi_scale_spectral_loss


def noise(seed: int, samples: int = 4000) -> torch.Tensor:
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


def test_equals_the_formula_on_librosas_spectrograms():
    predicted, target = noise(0), noise(1)
    scales = []
    for n_fft in (1024, 256):
        scale = 2 / np.hanning(n_fft + 1).sum()
        x, y = (
            scale * np.abs(librosa.stft(audio.numpy(), n_fft=n_fft, hop_length=n_fft // 4, pad_mode="reflect"))
            for audio in (predicted, target)
        )
        log_distance = np.abs(np.log(x + LOG_FLOOR) - np.log(y + LOG_FLOOR)).mean()
        scales.append(log_distance + np.sqrt(((x - y) ** 2).sum()) / (np.sqrt((y**2).sum()) + LOG_FLOOR))
    actual = multi_scale_spectral_loss(predicted, target, fft_sizes=(1024, 256))
    assert actual.item() == pytest.approx(np.mean(scales), rel=1e-4)


def test_a_full_scale_sine_has_magnitude_one():
    time = torch.arange(8000) / 16_000
    spectrogram = magnitude_spectrogram(torch.sin(2 * np.pi * 1000 * time)[None], 512)
    assert spectrogram[0, 32, 10].item() == pytest.approx(1.0, abs=1e-3)  # 1000 Hz is bin 32 of 512 at 16 kHz


def test_the_loss_is_zero_at_equality_and_positive_otherwise():
    assert multi_scale_spectral_loss(noise(0), noise(0)).item() == 0.0
    assert multi_scale_spectral_loss(noise(0), noise(1)).item() > 0.1


def test_the_loss_ignores_the_phase():
    torch.testing.assert_close(multi_scale_spectral_loss(-noise(0), noise(0)).item(), 0.0, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("predicted", "target"), [(torch.zeros(2, 4000), noise(0)), (noise(0), torch.zeros(2, 4000))])
def test_silence_gives_finite_loss_and_gradient(predicted, target):
    predicted = predicted.clone().requires_grad_()
    loss = multi_scale_spectral_loss(predicted, target)
    loss.backward()
    assert loss.isfinite()
    assert predicted.grad.isfinite().all()
    assert predicted.grad.any() == predicted.detach().any()


def test_autocast_does_not_lower_the_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = multi_scale_spectral_loss(noise(0), noise(1))
    assert torch.equal(under_autocast, multi_scale_spectral_loss(noise(0), noise(1)))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 4000\).*\(2, 3999\)"):
        multi_scale_spectral_loss(noise(0), noise(0)[:, :3999])
    with pytest.raises(ValueError, match="1024 samples.*more than 1024"):
        multi_scale_spectral_loss(noise(0)[:, :1024], noise(0)[:, :1024])
