from __future__ import annotations

import pytest
import torch

from qd.audio.chunks import FRAMES_AT_ONCE, cached_rows, map_chunks
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig


def chunk_sizes(clips: torch.Tensor, frames: int) -> list[int]:
    sizes = []

    def double(chunk: torch.Tensor) -> torch.Tensor:
        sizes.append(len(chunk))
        return 2 * chunk

    torch.testing.assert_close(map_chunks(double, clips, cached_rows(clips, frames)), 2 * clips)
    return sizes


@pytest.mark.parametrize(
    ("frames", "sizes"),
    [(FRAMES_AT_ONCE // 3, [3, 3, 1]), (FRAMES_AT_ONCE // 7, [7]), (FRAMES_AT_ONCE + 1, [1] * 7), (1, [7])],
)
def test_chunks_have_a_bounded_number_of_frames_and_at_least_one_clip(frames, sizes):
    with torch.no_grad():
        assert chunk_sizes(torch.arange(14.0).view(7, 2), frames) == sizes


def test_with_gradient_the_whole_batch_runs_at_once():
    assert chunk_sizes(torch.ones(7, 2), FRAMES_AT_ONCE) == [7]


@torch.no_grad()
def test_a_batch_is_decoded_and_embedded_like_its_clips_one_by_one():
    torch.manual_seed(0)
    codec = FrameCodec(CodecConfig(width=16, decoder_depths=(1, 1), latent_width=8, codebook_size=16)).eval()
    codec.quantizer.embeddings.normal_()
    codes = torch.randint(16, (9, 4, 100))
    audio = codec.decode(codes)
    torch.testing.assert_close(audio, torch.cat([codec.decode(one[None]) for one in codes]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(audio, codec.decoder(codec.quantizer.decode(codes)), atol=1e-5, rtol=1e-5)

    embedder = AudioViT(AudioViTConfig(layers=1, width=16, mlp_width=16)).eval()
    one_by_one = torch.cat([embedder(clip[None]) for clip in audio])
    torch.testing.assert_close(embedder(audio), one_by_one, atol=1e-5, rtol=1e-5)
    with torch.enable_grad():
        torch.testing.assert_close(embedder(audio), one_by_one, atol=1e-5, rtol=1e-5)
