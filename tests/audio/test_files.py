from __future__ import annotations

import io

import librosa
import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch

from qd.audio.files import FLOOR_DB, encode_for_web, log_mel, spectrogram_png, write_audio

RATE = 16_000


def tone(hertz: float, seconds: float = 0.5) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def test_a_wav_file_has_the_samples_clipped_to_one(tmp_path):
    audio = 2 * tone(440)
    write_audio(tmp_path / "new" / "clip.wav", audio, RATE)
    read, rate = soundfile.read(tmp_path / "new" / "clip.wav", dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(read, audio.clamp(-1, 1).numpy(), atol=1.5 / 32768)
    write_audio(tmp_path / "loud.wav", 3 * audio, RATE)
    assert np.abs(soundfile.read(tmp_path / "loud.wav")[0]).max() <= 1


def test_two_channels_stay_two_channels(tmp_path):
    audio = torch.stack([tone(440), tone(880)])
    write_audio(tmp_path / "clip.wav", audio, RATE)
    np.testing.assert_allclose(soundfile.read(tmp_path / "clip.wav")[0].T, audio.numpy(), atol=1.5 / 32768)
    write_audio(tmp_path / "one.wav", audio[:1], RATE)
    assert soundfile.read(tmp_path / "one.wav", always_2d=True)[0].shape == (RATE // 2, 1)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(3, 10), r"shape \(3, 10\)"),
        (torch.zeros(2, 0), r"shape \(0,\)"),
        (torch.zeros(0), r"shape \(0,\)"),
        (torch.tensor([0.0, float("nan"), float("inf")]), "2 samples.*not finite"),
    ],
)
def test_bad_audio_is_refused(audio, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_audio(tmp_path / "bad.wav", audio, RATE)


def test_audio_for_web_pages_is_smaller_and_sounds_the_same(tmp_path):
    audio = tone(440, seconds=1.0) + 0.02 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    write_audio(tmp_path / "clip.flac", audio, RATE)
    mime_type, data = encode_for_web(tmp_path / "clip.flac")
    assert mime_type == "audio/mpeg" and len(data) < 0.5 * (tmp_path / "clip.flac").stat().st_size
    read, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE and len(read) == RATE
    assert np.corrcoef(read, audio)[0, 1] > 0.98


def test_a_sample_rate_that_mp3_does_not_support_is_not_encoded(tmp_path):
    write_audio(tmp_path / "clip.flac", tone(440), 17_000)
    assert encode_for_web(tmp_path / "clip.flac") == ("audio/flac", (tmp_path / "clip.flac").read_bytes())


@pytest.mark.parametrize("hertz", [200.0, 1_000.0, 4_000.0])
def test_a_tone_is_loudest_in_its_mel_band(hertz):
    mel = log_mel(tone(hertz), RATE)
    centres = librosa.mel_frequencies(n_mels=130, fmax=RATE / 2)[1:-1]
    loudest = centres[mel[:, mel.shape[1] // 2].argmax()]
    assert abs(loudest - hertz) < 0.05 * hertz + 20


def test_the_png_shows_loud_and_silent_clips(tmp_path):
    clips = [tone(1_000), np.zeros(RATE // 2, dtype=np.float32)]
    spectrogram_png(tmp_path / "new" / "clips.png", clips, RATE, ["a tone", "silence"])
    picture = matplotlib.image.imread(tmp_path / "new" / "clips.png")
    height, width = picture.shape[:2]
    assert height > 400 and width > 800
    tops, bottoms = picture[: height // 2, : width * 3 // 4, :3], picture[height // 2 :, : width * 3 // 4, :3]
    orange = [(half[..., 0] > 0.9) & (half[..., 2] < 0.8) for half in (tops, bottoms)]
    assert orange[0].sum() > 500 and orange[1].sum() == 0
    assert FLOOR_DB < 0


def test_a_png_needs_a_title_for_each_clip(tmp_path):
    with pytest.raises(ValueError, match="1 clips.*2 titles"):
        spectrogram_png(tmp_path / "x.png", [tone(440)], RATE, ["a", "b"])
    with pytest.raises(ValueError, match="0 clips"):
        spectrogram_png(tmp_path / "x.png", [], RATE, [])
