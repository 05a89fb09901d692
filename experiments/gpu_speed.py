"""The token loop on an NVIDIA GPU, in bfloat16, beside the library's `generate`: MusicGen's shape, random weights.

    python experiments/gpu_speed.py --checkpoint /tmp/musicgen-small --json gpu_speed.json
    python experiments/gpu_speed.py --clips 128 --frames 500 --repeats 3

Four samples a prompt. In turn: `generate`, the plain loop and the captured graphs, each without and with guidance.
The floor: weights, and the keys and values that a step reads, once, at the bandwidth of a large copy on the same card.
At last, what the kernels of one batch of the captured graphs take, under PyTorch's profiler.
`--checkpoint` keeps the random model, as a folder that `qd train` takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from bench_library import library_tokens
from bench_timing import alternate
from torch.profiler import ProfilerActivity, profile
from transformers import (
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from qd.models.musicgen import MusicGen
from qd.models.sampling import sampler
from qd.models.sampling.sampler import Sampler
from qd.models.sampling.stepwise_loop import draw_stepwise
from qd.runs.quiet import quieten_libraries

TOKENIZER = Path(__file__).parents[1] / "tests" / "assets" / "t5"
SAMPLES = 4  # of a prompt
WORDS = "a slow jazz tune with a trumpet melody over brushed drums and a double bass in a small smoky club"


def random_checkpoint(folder: Path) -> None:
    """musicgen-small's config values, with random weights: T5-base, 24 layers of width 1024, EnCodec of 32 kHz."""
    decoder = MusicgenDecoderConfig(
        vocab_size=2048, num_hidden_layers=24, ffn_dim=4096, num_attention_heads=16, hidden_size=1024, num_codebooks=4,
        pad_token_id=2048, bos_token_id=2048,
    )  # fmt: skip
    text = T5Config(vocab_size=32128, d_model=768, d_ff=3072, num_layers=12, num_heads=12)
    codec = EncodecConfig(
        target_bandwidths=[2.2], sampling_rate=32_000, upsampling_ratios=[8, 5, 4, 4], codebook_size=2048,
        codebook_dim=128, hidden_size=128, num_filters=64, use_causal_conv=False, norm_type="weight_norm",
    )  # fmt: skip
    torch.manual_seed(0)
    parts = {"text_encoder": T5EncoderModel(text), "decoder": MusicgenForCausalLM(decoder)}
    model = MusicgenForConditionalGeneration(audio_encoder=EncodecModel(codec), **parts)
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.copy_(torch.randn_like(layer.codebook.embed))
    model.generation_config.update(
        decoder_start_token_id=2048, pad_token_id=2048, bos_token_id=2048, guidance_scale=3.0
    )
    model.save_pretrained(folder)
    shutil.copytree(TOKENIZER, folder, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
    EncodecFeatureExtractor(1, 32_000, padding_side="left").save_pretrained(folder)


def bandwidth() -> float:
    """Bytes a second of a copy on the card, read and written."""
    source = torch.empty(2**30, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    copy = awaited(lambda: target.copy_(source))
    return 2 * source.nbytes / alternate({"copy": copy}, 5)["copy"]


def awaited(run: Callable[[], object]) -> Callable[[], None]:
    """The run until the GPU is done."""

    def done() -> None:
        run()
        torch.cuda.synchronize()

    return done


def kernel_seconds(run: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Calls and seconds of each kernel, those that take longest first. Under the profiler all take a little longer."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    ordered = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)[:20]
    return {event.key[:80]: {"calls": event.count, "seconds": event.self_device_time_total / 1e6} for event in ordered}


def rivals(folder: Path, clips: int, frames: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name. The library multiplies in bfloat16 weights, ours in copies that it makes of float32."""
    music, half = (MusicGen.load(str(folder), dtype=dtype).to("cuda") for dtype in (torch.float32, torch.bfloat16))
    prompts = [f"{WORDS}, take {take}" for take in range(clips // SAMPLES)]
    condition, halved = (one.condition(prompts).repeat_interleave(SAMPLES) for one in (music, half))
    uniforms = torch.rand(clips, 4, frames + 3, device="cuda")
    generate = library_tokens(half)

    def ours(scale: float) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            Sampler(music.lm).sample(
                condition, frames, temperature=0.99, uniforms=lambda step: uniforms[..., step], guidance_scale=scale
            )

    def plain(scale: float) -> None:
        with patch.object(sampler, "_loop", lambda *_: draw_stepwise):
            ours(scale)

    named = {"generate": lambda scale: generate(halved, frames, scale), "plain loop": plain, "graphs": ours}
    scales = {"": 1.0, ", guidance": 3.0}
    return {f"{name}{how}": partial(run, scale) for how, scale in scales.items() for name, run in named.items()}


def floor(rows: int, frames: int, rate: float) -> float:
    """Seconds of reading weights once a step and the written keys and values of each, in bfloat16."""
    layers, width, ffn, codes = 24, 1024, 4096, 4 * 2048
    weights = layers * (6 * width**2 + 2 * width * ffn) + codes * width
    steps = frames + 3
    cache = rows * layers * 2 * width * steps * (steps + 1) / 2
    return 2 * (steps * weights + cache) / rate


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("/tmp/musicgen-small-random"))
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quieten_libraries()
    if not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU, and PyTorch for it")
    if not (options.checkpoint / "config.json").is_file():
        random_checkpoint(options.checkpoint)
    rate = bandwidth()
    runs = rivals(options.checkpoint, options.clips, options.frames)
    times = alternate({name: awaited(run) for name, run in runs.items()}, options.repeats)
    kernels = kernel_seconds(runs["graphs"])
    rows = {}
    for name, seconds in times.items():
        guided = "guidance" in name
        rows[name] = {
            "seconds": seconds,
            "ms_a_frame": 1000 * seconds / options.frames,
            "times_generate": times["generate, guidance" if guided else "generate"] / seconds,
            "over_floor": seconds / floor((2 if guided else 1) * options.clips, options.frames, rate),
        }
    tell(
        {"clips": options.clips, "frames": options.frames, "bandwidth": rate, "rows": rows, "kernels": kernels},
        options.json,
    )
    return 0


def tell(result: dict, file: Path | None) -> None:
    """Prints it with the machine's description, and writes it to the file."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    text = json.dumps({"device": device, "torch": torch.__version__, **result}, indent=1)
    print(text)
    if file:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
