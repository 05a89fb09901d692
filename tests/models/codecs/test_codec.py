from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.codecs.layers import Downsample, InverseSTFTHead, Upsample, inverse_stft

TINY = CodecConfig(width=16, n_mels=20, encoder_depths=(1, 1), decoder_depths=(1, 1), latent_width=8, codebook_size=16)


def noise(batch: int = 2, samples: int = 6400) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def tiny_codec() -> FrameCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = FrameCodec(TINY)
    codec.train()(noise())  # fills the codebooks
    return codec.eval()


def test_default_is_the_documented_size():
    codec = FrameCodec(CodecConfig())
    assert (codec.sample_rate, codec.frame_rate, codec.samples_per_frame) == (16_000, 25.0, 640)
    assert (codec.codebooks, codec.codebook_size) == (4, 512)
    assert 2.6e6 < sum(parameter.numel() for parameter in codec.parameters()) < 3.1e6
    codes = codec.eval().encode(noise(1, 64_000))
    assert codes.shape == (1, 4, 100)


@pytest.mark.parametrize(("samples", "frames"), [(640, 1), (1, 1), (6400, 10), (6401, 11), (7039, 11)])
def test_lengths(samples, frames):
    codec = tiny_codec()
    audio = noise(3, samples)
    codes = codec.encode(audio)
    assert codes.shape == (3, 4, frames)
    assert codes.dtype == torch.int64
    decoded = codec.decode(codes)
    assert decoded.shape == (3, frames * 640)
    assert decoded.dtype == torch.float32
    assert codec(audio).audio.shape == decoded.shape


def test_forward_in_eval_mode_equals_encode_and_decode_without_updates():
    codec = tiny_codec()
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    output = codec(noise())
    assert torch.equal(output.codes, codec.encode(noise()))
    torch.testing.assert_close(output.audio, codec.decode(output.codes), rtol=1e-4, atol=1e-5)
    for name, tensor in codec.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_rows_do_not_depend_on_their_batch():
    codec = tiny_codec()
    audio = noise(4)
    codes = codec.encode(audio)
    assert torch.equal(codes[1:2], codec.encode(audio[1:2]))
    torch.testing.assert_close(codec.decode(codes)[1:2], codec.decode(codes[1:2]), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter_and_decode_has_none():
    codec = tiny_codec().train()
    output = codec(noise())
    (output.audio.square().mean() + output.commitment_loss).backward()
    assert [name for name, parameter in codec.named_parameters() if not parameter.grad.any()] == []
    assert not codec.decode(codec.encode(noise())).requires_grad


def test_autocast_keeps_audio_and_codebooks_in_float32():
    codec = tiny_codec().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = codec(noise())
    assert output.audio.dtype == torch.float32
    assert output.audio.isfinite().all()
    assert codec.quantizer.embeddings.dtype == torch.float32


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_codec_can_be_loaded(tmp_path, half):
    codec = tiny_codec()
    codec.save_pretrained(tmp_path / "codec", half=half)
    reloaded = FrameCodec.from_pretrained(tmp_path / "codec")
    assert reloaded.config == codec.config
    assert not reloaded.training
    stored = load_file(tmp_path / "codec" / "model.safetensors")
    assert set(stored) == set(codec.state_dict())
    for name, tensor in codec.state_dict().items():
        expected = tensor.half().float() if half and tensor.is_floating_point() else tensor
        assert torch.equal(reloaded.state_dict()[name], expected), name
        assert reloaded.state_dict()[name].dtype == tensor.dtype


def test_incomplete_folder_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        FrameCodec.from_pretrained(tmp_path)


def test_bad_input_is_named():
    codec = tiny_codec()
    with pytest.raises(ValueError, match=r"\(6400,\)"):
        codec.encode(noise()[0])
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        codec.encode(noise()[:, :0])
    with pytest.raises(ValueError, match=r"\(1, 3, 5\).*\(batch, 4, frames\)"):
        codec.decode(torch.zeros(1, 3, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="0 to 16.*0 to 15"):
        codec.decode(torch.tensor([0, 16, 1, 2])[None, :, None])
    with pytest.raises(ValueError, match="n_fft=1000 .*multiple of hop_length=300"):
        FrameCodec(replace(TINY, n_fft=1000, hop_length=300))(noise())


def test_inverse_stft_undoes_an_stft():
    audio, window, hop = noise(2, 3200), torch.hann_window(1280), 320
    padded = torch.nn.functional.pad(audio, (480, 480))
    spectrum = torch.stack([torch.fft.rfft(padded[:, t * hop : t * hop + 1280] * window) for t in range(10)], dim=1)
    torch.testing.assert_close(inverse_stft(spectrum, window, hop), audio, rtol=1e-4, atol=1e-6)


def test_inverse_stft_equals_a_loop_on_an_inconsistent_spectrum():
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.randn(1, 5, 33, dtype=torch.complex64, generator=generator)
    window = np.hanning(65)[:-1]
    audio, envelope = np.zeros(4 * 16 + 64), np.zeros(4 * 16 + 64)
    for t in range(5):
        audio[t * 16 : t * 16 + 64] += np.fft.irfft(spectrum[0, t].numpy(), 64) * window
        envelope[t * 16 : t * 16 + 64] += window**2
    expected = (audio / np.maximum(envelope, 1e-12))[24:-24]
    actual = inverse_stft(spectrum, torch.hann_window(64), 16)[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_head_turns_log_magnitude_and_phase_into_audio():
    head = InverseSTFTHead(1282, 1280, 320)
    torch.nn.init.eye_(head.project.weight)
    torch.nn.init.zeros_(head.project.bias)
    audio = noise(1, 3200)
    padded = torch.nn.functional.pad(audio, (480, 480))
    frames = padded.unfold(1, 1280, 320) * torch.hann_window(1280)
    spectrum = torch.fft.rfft(frames)
    reconstruction = head(torch.cat([spectrum.abs().log(), spectrum.angle()], dim=-1))
    torch.testing.assert_close(reconstruction, audio, rtol=1e-3, atol=1e-5)


def test_change_of_frame_rate_equals_strided_convolutions():
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    down, up = Downsample(8, 2), Upsample(8, 2)
    kernel = down.merge.weight.view(8, 2, 8).transpose(1, 2)
    expected = torch.nn.functional.conv1d(down.norm(x).transpose(1, 2), kernel, down.merge.bias, stride=2)
    torch.testing.assert_close(down(x), expected.transpose(1, 2))
    kernel = up.split.weight.view(2, 8, 8).permute(2, 1, 0)
    expected = torch.nn.functional.conv_transpose1d(up.norm(x).transpose(1, 2), kernel, stride=2).transpose(1, 2)
    torch.testing.assert_close(up(x), expected + up.split.bias.view(2, 8).repeat(6, 1))
