"""Speed and memory on an NVIDIA GPU: MusicGen small's shape, random weights, bfloat16.

    python experiments/gpu_speed.py loop --clips 128 --frames 500 --repeats 3 --json gpu_loop.json
    python experiments/gpu_speed.py step --micro 64 --steps 20 --json gpu_step.json [key=value …]

`loop` times the token loop with four samples a prompt. In turn: the library's `generate`, the plain loop and the
captured graphs, each without and with guidance. The floor is one read a step of the weights and of the cached keys and
values, at the bandwidth of a large copy on the same card. It also profiles the kernels of one batch of the graphs.

`step` runs `qd train` on clips of 10 s, 128 a step, and reads its log: median seconds of each stage without the first
two steps, and the peak memory between the ends of two stages. More settings of `qd train` may follow.

Both create the random model in the folder `--checkpoint` if it does not exist.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from bench_tools import alternate, library_tokens
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

from qd.cli.main import main as qd
from qd.models.musicgen import MusicGen
from qd.models.sampling import sampler
from qd.models.sampling.sampler import Sampler
from qd.models.sampling.stepwise_loop import draw_stepwise
from qd.runs.quiet import quieten_libraries
from qd.runs.scalars import read_scalars
from qd.runs.step_record import StepRecord

TOKENIZER = Path(__file__).parents[1] / "tests" / "assets" / "t5"
SAMPLES = 4  # a prompt
WORDS = "a slow jazz tune with a trumpet melody over brushed drums and a double bass in a small smoky club"
SECONDS = "train/seconds_"


@torch.no_grad()
def random_checkpoint(folder: Path) -> None:
    """Saves a model with musicgen-small's config: T5-base, 24 layers of width 1024, EnCodec at 32 kHz."""
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
    copy = synchronized(lambda: target.copy_(source))
    return 2 * source.nbytes / alternate({"copy": copy}, 5)["copy"]


def synchronized(run: Callable[[], object]) -> Callable[[], None]:
    """The same call, which returns only when the GPU has finished."""

    def run_to_end() -> None:
        run()
        torch.cuda.synchronize()

    return run_to_end


def kernel_seconds(run: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Calls and seconds of the 20 slowest kernels. The profiler slows all of them a little."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    ordered = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)[:20]
    return {event.key[:80]: {"calls": event.count, "seconds": event.self_device_time_total / 1e6} for event in ordered}


def programs(folder: Path, clips: int, frames: int) -> dict[str, Callable[[], object]]:
    """The samplers by name. The library multiplies bfloat16 weights; ours makes bfloat16 copies of float32 weights."""
    music, half = (MusicGen.load(str(folder), dtype=dtype).to("cuda") for dtype in (torch.float32, torch.bfloat16))
    prompts = [f"{WORDS}, take {take}" for take in range(clips // SAMPLES)]
    condition, half_condition = (one.condition(prompts).repeat_interleave(SAMPLES) for one in (music, half))
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

    named = {"generate": lambda scale: generate(half_condition, frames, scale), "plain loop": plain, "graphs": ours}
    scales = {"": 1.0, ", guidance": 3.0}
    return {f"{name}{how}": partial(run, scale) for how, scale in scales.items() for name, run in named.items()}


def floor(rows: int, frames: int, rate: float) -> float:
    """Seconds to read, in bfloat16, the weights once a step and the keys and values written so far."""
    layers, width, ffn, codes = 24, 1024, 4096, 4 * 2048
    weights = layers * (6 * width**2 + 2 * width * ffn) + codes * width
    steps = frames + 3
    cache = rows * layers * 2 * width * steps * (steps + 1) / 2
    return 2 * (steps * weights + cache) / rate


@torch.no_grad()
def measure_loop(options: argparse.Namespace) -> dict:
    """Measures the token loop, and the seconds of its kernels."""
    rate = bandwidth()
    runs = programs(options.checkpoint, options.clips, options.frames)
    times = alternate({name: synchronized(run) for name, run in runs.items()}, options.repeats)
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
    return {"clips": options.clips, "frames": options.frames, "bandwidth": rate, "rows": rows, "kernels": kernels}


def measure_step(options: argparse.Namespace) -> dict:
    """Seconds and peak memory of a training step, by stage.

    Raises:
        SystemExit: ``qd train`` failed.
    """
    peaks: dict[str, int] = defaultdict(int)
    took = StepRecord.took

    def record_peak(record: StepRecord, name: str, start: float, device: torch.device) -> None:
        took(record, name, start, device)
        if device.type == "cuda":
            peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()

    with tempfile.TemporaryDirectory() as runs, patch.object(StepRecord, "took", record_peak):
        code = qd(
            ["train", "--config", "musicgen-small", "--beta", "15", "--name", "gpu", f"model.name={options.checkpoint}",
             f"trainer.runs={runs}", f"trainer.max_steps={options.steps}", f"data.micro_batch_size={options.micro}",
             "data.batch_size=128", "trainer.log_every=1", "evaluation.n_prompts=4", "evaluation.n_samples=2",
             f"evaluation.every={options.steps}", f"trainer.save_weights_every={options.steps}",
             f"trainer.checkpoint_every={options.steps}", *options.overrides]
        )  # fmt: skip
        if code:
            raise SystemExit(code)
        scalars = read_scalars(f"{runs}/gpu")
    times = {tag: [scalar.value for _, scalar in sorted(values.items())][2:] for tag, values in scalars.items()}
    stages = {
        tag.removeprefix(SECONDS): median(values) for tag, values in times.items() if values and tag.startswith(SECONDS)
    }
    memory = {name: peak / 2**30 for name, peak in peaks.items()}
    return {"micro": options.micro, "seconds": stages, "peak_gib": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    loop = commands.add_parser("loop", help="time the token loop")
    loop.add_argument("--clips", type=int, default=128, help="clips in a batch (default: %(default)s)")
    loop.add_argument("--frames", type=int, default=500, help="frames in a clip (default: %(default)s)")
    loop.add_argument("--repeats", type=int, default=3, help="timed rounds (default: %(default)s)")
    step = commands.add_parser("step", help="measure a training step")
    step.add_argument("--micro", type=int, default=64, help="sequences in a micro-batch (default: %(default)s)")
    step.add_argument("--steps", type=int, default=20, help="training steps (default: %(default)s)")
    step.add_argument("overrides", nargs="*", help="settings of qd train, such as model.dtype=bfloat16")
    for command in (loop, step):
        command.add_argument("--checkpoint", type=Path, default=Path("/tmp/musicgen-small-random"))
        command.add_argument("--json", type=Path, help="also write the result to this file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU and a PyTorch build for it")
    quieten_libraries()
    if not (options.checkpoint / "config.json").is_file():
        random_checkpoint(options.checkpoint)
    measured = measure_loop(options) if options.command == "loop" else measure_step(options)
    text = json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, **measured}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
