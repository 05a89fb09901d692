from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qd.models.embedders.loading import Embedder
from qd.models.embedders.vggish import PATCH_SAMPLES, VGGish

RATE = 16_000


@pytest.fixture(scope="module")
def vggish() -> VGGish:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VGGish().eval().requires_grad_(False)


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(2, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def naive_patches(signal: np.ndarray) -> np.ndarray:
    """The documented front end, computed frame by frame and band by band.

    Periodic Hann windows of 25 ms every 10 ms, magnitudes of an FFT of 512, 64 triangles between 125 and 7,500 Hz on
    HTK's mel scale, log(· + 0.01), patches of 96 frames.
    """
    window = [0.5 - 0.5 * math.cos(2 * math.pi * i / 400) for i in range(400)]

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    edges, triangles = np.linspace(mel(125), mel(7500), 66), np.zeros((64, 257))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        for k in range(1, 257):
            m = mel(k * RATE / 512)
            triangles[band, k] = max(0.0, min((m - low) / (centre - low), (high - m) / (high - centre)))
    rows = []
    for start in range(0, len(signal) - 400 + 1, 160):
        rows.append(np.log(triangles @ np.abs(np.fft.rfft(signal[start : start + 400] * window, 512)) + 0.01))
    return np.stack([rows[i : i + 96] for i in range(0, len(rows) - 95, 96)])


def test_patches_equal_the_documented_front_end(vggish):
    audio = noise(2.5)
    patches = vggish.patches(audio)
    assert patches.shape == (2, 2, 96, 64)
    np.testing.assert_allclose(patches[1].numpy(), naive_patches(audio[1].double().numpy()), atol=2e-4)


def test_embeddings_equal_layers_applied_by_hand(vggish):
    """Uses the weight names and the layer order of ``torchvggish``, without the last ReLU."""
    audio, weights = noise(1.0), vggish.state_dict()
    x = vggish.patches(audio).flatten(0, 1)[:, None]
    for layer, pools in {0: True, 3: True, 6: False, 8: True, 11: False, 13: True}.items():
        x = torch.conv2d(x, weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"], padding=1).relu()
        if pools:
            x = torch.max_pool2d(x, 2)
    x = x.transpose(1, 3).transpose(1, 2).reshape(len(x), -1)
    for layer in (0, 2, 4):
        x = x @ weights[f"embeddings.{layer}.weight"].T + weights[f"embeddings.{layer}.bias"]
        x = x if layer == 4 else x.relu()
    torch.testing.assert_close(vggish.embed_windows(audio)[:, 0], x)
    assert (x < 0).any()


def test_is_an_embedder(vggish):
    assert isinstance(vggish, Embedder)
    audio = noise(2.5)
    expected = torch.nn.functional.normalize(vggish.embed_windows(audio).mean(dim=1), dim=-1)
    torch.testing.assert_close(vggish(audio, RATE), expected)
    assert vggish(torch.zeros(1, 100)).isfinite().all()
    with pytest.raises(ValueError, match="44100 Hz"):
        vggish(audio, 44_100)
    with pytest.raises(ValueError, match=r"\(batch, samples\)"):
        vggish(audio[0])


def test_short_audio_is_padded_and_an_incomplete_patch_is_dropped(vggish):
    assert vggish.patches(noise(0.1)).shape[1] == 1
    assert vggish.patches(torch.zeros(1, PATCH_SAMPLES)).shape[1] == 1
    one_less, two = (vggish.patches(torch.zeros(1, PATCH_SAMPLES + 96 * 160 - less)).shape[1] for less in (1, 0))
    assert (one_less, two) == (1, 2)


@pytest.mark.slow  # writes and reads 290 MB
def test_weights_are_loaded_from_a_file(vggish, tmp_path):
    torch.save(vggish.state_dict(), tmp_path / "a.pth")
    loaded = VGGish.from_file(tmp_path / "a.pth")
    assert torch.equal(loaded.embed_windows(noise(1.0)), vggish.embed_windows(noise(1.0)))
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_files_without_these_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="gone.pth' do not exist.*https"):
        VGGish.from_file(tmp_path / "gone.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights of torchvggish"):
        VGGish.from_file(tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="does not hold the weights of torchvggish"):
        VGGish.from_file(tmp_path / "text.pth")
