"""What was tried to decode and embed 32 clips of 4 s faster, each beside the code as it is, in turn (A B A B …).

    python experiments/listening_speed.py [--repeats 7]

One thread, and the processor's time, which other programs hardly change. Prints for each its median, how much faster it
is than the first one of its table, and the largest difference of their results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from bench_timing import alternate
from torch import Tensor

from qd.audio import chunks as pieces
from qd.metrics.formatting import markdown_table
from qd.models.codecs import layers as codec_layers
from qd.models.codecs.codec import FrameCodec, load_codec
from qd.models.codecs.layers import ConvNeXtBlock, InverseSTFTHead
from qd.models.embedders.audio_vit import Attention, AudioViT, rotate
from qd.models.embedders.loading import load_embedder
from qd.runs.quiet import quieten_libraries

CLIPS, FRAMES, SAMPLES = 32, 100, 64_000

Work = Callable[[], Tensor]


def with_patches(work: Work, *patches: tuple[object, str, object]) -> Work:
    """The work while attributes have other values."""

    def patched() -> Tensor:
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
        for owner, name, value in patches:
            setattr(owner, name, value)
        try:
            return work()
        finally:
            for owner, name, value in kept:
                setattr(owner, name, value)

    return patched


def polar_head(head: InverseSTFTHead, x: Tensor) -> Tensor:
    magnitude, phase = head.project(x).chunk(2, dim=-1)
    spectrum = torch.polar(magnitude.clamp_max(codec_layers.MAX_LOG_MAGNITUDE).exp(), phase)
    return codec_layers.inverse_stft(spectrum, head.window, head.hop_length)


def stacked_overlap(frames: Tensor, window: Tensor, hop_length: int) -> Tensor:
    overlap = frames.shape[-1] // hop_length
    hops = (frames * window).unflatten(-1, (overlap, hop_length))
    return torch.stack([F.pad(hops[:, :, k], (0, 0, k, overlap - 1 - k)) for k in range(overlap)]).sum(0).flatten(1)


def folded_block(block: ConvNeXtBlock) -> Callable[[ConvNeXtBlock, Tensor], Tensor]:
    """The block with its norm's affine map and its layer scale folded into the products, which oneDNN fuses with what
    follows them."""
    expand, contract = block.expand, block.contract
    wide, bias = expand.weight * block.norm.weight, expand.bias + expand.weight @ block.norm.bias
    narrow, shift = contract.weight * block.scale[:, None], contract.bias * block.scale
    pack, product = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    wide, narrow = (pack(weight.contiguous(), pieces.FRAMES_AT_ONCE) for weight in (wide, narrow))

    def forward(x: Tensor) -> Tensor:
        mixed = block.depthwise(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        normed = F.layer_norm(mixed, mixed.shape[-1:], eps=block.norm.eps)
        return product.binary(product(normed, wide, bias, "gelu", [], "none"), x.contiguous(), narrow, shift, "add")

    return forward


def codec_rivals(codec: FrameCodec) -> dict[str, Work]:
    codes = torch.randint(codec.codebook_size, (CLIPS, codec.codebooks, FRAMES))
    blocks = [block for block in codec.decoder if isinstance(block, ConvNeXtBlock)]
    whole = (pieces, "FRAMES_AT_ONCE", 10**9)
    head, overlap = (InverseSTFTHead, "forward", polar_head), (codec_layers, "_overlap_add", stacked_overlap)

    def decode() -> Tensor:
        return codec.decode(codes)

    return {
        "whole batch, torch.polar, stacked overlaps": with_patches(decode, whole, head, overlap),
        "pieces": with_patches(decode, head, overlap),
        "pieces, cosine and sine": with_patches(decode, overlap),
        "as it is: pieces, cosine and sine, overlaps added in place": decode,
        "and norms and layer scales folded, products packed and fused": with_patches(
            decode, *((block, "forward", folded_block(block)) for block in blocks)
        ),
    }


def plain_attention(attention: Attention, x: Tensor, table: Tensor) -> Tensor:
    split = attention.qkv(x).unflatten(-1, (3, attention.heads, attention.head_dim))
    query, key, value = split.permute(2, 0, 3, 1, 4)
    scores = rotate(query, table) @ rotate(key, table).transpose(2, 3) * attention.head_dim**-0.5
    return attention.out((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


def one_rotation(attention: Attention, x: Tensor, table: Tensor) -> Tensor:
    """Queries and keys turned together, where they lie."""
    split = attention.qkv(x).unflatten(-1, (3, attention.heads, attention.head_dim))
    cos, sin = table[:, :, None, None]
    first, second = split[:, :, :2].chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    query, key = turned.permute(2, 0, 3, 1, 4)
    return attention.out(
        F.scaled_dot_product_attention(query, key, split[:, :, 2].transpose(1, 2)).transpose(1, 2).flatten(2)
    )


def embedder_rivals(embedder: AudioViT) -> dict[str, Work]:
    audio = 0.1 * torch.randn(CLIPS, SAMPLES)

    def embed() -> Tensor:
        return embedder(audio)

    return {
        "whole batch": with_patches(embed, (pieces, "FRAMES_AT_ONCE", 10**9)),
        "as it is: pieces": embed,
        "and attention as plain products": with_patches(embed, (Attention, "forward", plain_attention)),
        "and one rotation of queries and keys": with_patches(embed, (Attention, "forward", one_rotation)),
    }


def in_half(work: Work) -> Work:
    def mixed() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return work()

    return mixed


def compare(rivals: dict[str, Work], repeats: int) -> str:
    first = next(iter(rivals))
    expected, seconds = rivals[first](), alternate(rivals, repeats, time.process_time)
    rows = []
    for name, work in rivals.items():
        off = float((work() - expected).abs().max())
        rows.append([name, f"{seconds[name]:.3f}", f"{seconds[first] / seconds[name]:.2f}", f"{off:.0e}"])
    return markdown_table(["", "seconds", "times faster", "largest difference"], rows)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="of each (7)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quieten_libraries()
    codec = load_codec("base")
    rivals = codec_rivals(codec)
    decode = next(work for name, work in rivals.items() if name.startswith("as it is"))
    rivals["as it is, under bfloat16 autocast: other results"] = in_half(decode)
    for title, found in {"decode": rivals, "embed": embedder_rivals(load_embedder("builtin"))}.items():
        print(f"{title}, {CLIPS} clips of 4 s\n\n{compare(found, options.repeats)}\n")


if __name__ == "__main__":
    main()
