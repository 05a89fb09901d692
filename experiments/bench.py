"""Speed of sampling, scoring, codec, embedder and the whole step, beside the library and beside the machine's floor.

    python experiments/bench.py [--batches 4 32 128] [--repeats 3] [--threads 2] [--memory] [--out DIR]

All in one process, the rivals in turn (A B A B …); a row is the median of the repeats after one that is not counted.
The floor of a row is the larger of its multiplications over the measured rate of a 2048² float32 product, and of its
bytes over the measured bandwidth of a copy. ``--memory`` adds the peak memory of KL and log-probabilities at the shape
of musicgen-small, 32 clips of 10 s, each form in a process of its own (some minutes). Writes ``bench.json`` and
``performance.md`` into DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from profile_step import PROMPTS, build_module
from scoring_memory import memory_rows
from transformers import EncodecConfig, EncodecModel, MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from qd.config import load_config
from qd.config_schema import TrainConfig
from qd.data.prompts import PromptBatch
from qd.memory import RunSize
from qd.models.condition import Condition
from qd.models.delay import delayed_steps
from qd.models.embedder import load_embedder
from qd.models.musicgen import MusicGen
from qd.models.sampler import Sampler, counter_uniforms
from qd.quiet import quieten_libraries
from qd.step_time import Rates, rollout_seconds

SECONDS, GUIDANCE, TEMPERATURE = 4.0, 3.0, 0.99

Work = Callable[[], object]


def alternate(rivals: dict[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats + 1):
        for name, work in rivals.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: median(values[1:]) for name, values in times.items()}


def machine_rates(repeats: int) -> dict[str, float]:
    """Multiply-adds a second, times two, of a 2048² product, and bytes a second read and written by a copy."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    source, target = torch.randn(2**25), torch.empty(2**25)
    times = alternate({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, repeats + 4)
    return {"flops": 2 * 2048**3 / times["product"], "bytes": 2 * 4 * 2**25 / times["copy"]}


def library_tokens(music: MusicGen) -> Callable[[Condition, int, float], object]:
    """The library's ``generate`` on the same decoder, whose codec is replaced by one that does nothing."""
    config = EncodecConfig(upsampling_ratios=[2], codebook_size=music.lm.codebook_size, hidden_size=8, num_filters=2)
    model = MusicgenForConditionalGeneration(
        text_encoder=music.text_encoder, audio_encoder=EncodecModel(config), decoder=music.lm.decoder
    ).eval()
    model.set_attn_implementation({"decoder": "sdpa"})
    pad, books = music.lm.pad, music.lm.codebooks
    model.generation_config.update(decoder_start_token_id=pad, pad_token_id=pad, bos_token_id=pad)
    model.audio_encoder.decode = lambda codes, *_, **__: SimpleNamespace(audio_values=codes[0].float())

    def generate(condition: Condition, frames: int, scale: float) -> object:
        batch, guided = len(condition), scale != 1
        both = condition.cat(music.null_condition(batch)) if guided else condition
        return model.generate(
            decoder_input_ids=torch.full((batch * books, 1), pad),
            encoder_outputs=BaseModelOutput(both.states.clone()),
            attention_mask=both.mask.long(),
            max_length=frames + books,
            guidance_scale=scale if guided else None,
            do_sample=True,
            top_k=0,
            num_return_sequences=1,
        )

    return generate


def sampling(music: MusicGen, batch: int, frames: int) -> Callable[[float], object]:
    """Our token loop, as a function of the guidance scale; 8 samples a prompt, or what the batch has."""
    lm, condition = music.lm, conditions(music, batch)
    steps = delayed_steps(lm.codebooks, frames, lm.channels)
    uniforms = counter_uniforms(0, 0, range(batch), lm.codebooks, steps)
    sampler = Sampler(lm)
    return lambda scale: sampler.sample(
        condition, frames, temperature=TEMPERATURE, uniforms=lambda step: uniforms[..., step], guidance_scale=scale
    )


def conditions(music: MusicGen, batch: int) -> Condition:
    samples = min(batch, 8)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(batch // samples)]
    return music.condition(prompts).repeat_interleave(samples)


def loop_floor(music: MusicGen, batch: int, frames: int, guided: bool, rates: dict[str, float]) -> float:
    """Seconds of the token loop's weight products, or of reading weights and caches once a step."""
    lm, config = music.lm, music.lm.decoder.config
    weights, steps = sum(p.numel() for p in lm.parameters()), delayed_steps(lm.codebooks, frames, lm.channels)
    shape = (config.num_hidden_layers, config.hidden_size, lm.codebooks, lm.codebook_size)
    size = RunSize(*shape, weights, rows=batch, steps=steps)
    return rollout_seconds(size, Rates(rates["flops"], rates["bytes"]), guided)


def token_loop_rows(music: MusicGen, batches: Sequence[int], repeats: int, rates: dict[str, float]) -> list[dict]:
    frames, generate, rows = music.frames(SECONDS), library_tokens(music), []
    for batch in batches:
        ours, condition = sampling(music, batch, frames), conditions(music, batch)
        for scale in (1.0, GUIDANCE):
            times = alternate(
                {"library": lambda c=condition, s=scale: generate(c, frames, s), "ours": lambda f=ours, s=scale: f(s)},
                repeats,
            )
            floor = loop_floor(music, batch, frames, scale != 1, rates)
            rows.append(row(f"token loop, {batch} × {SECONDS:g} s, guidance {scale:g}", **times, floor=floor))
    return rows


def growth_rows(music: MusicGen, repeats: int) -> list[dict]:
    """Exponent of the loop's time in the batch and in the clip's length: 1 is proportional."""
    frames = music.frames(SECONDS)
    cases = {"batch": ((32, frames), (128, frames)), "frames": ((32, frames), (32, 4 * frames))}
    rows = []
    for name, (small, large) in cases.items():
        loops = {size: sampling(music, *size) for size in (small, large)}
        work = {size: (lambda f=loop: f(1.0)) for size, loop in loops.items()}
        times = list(alternate(work, repeats).values())
        rows.append({"work": f"growth of the token loop with {name}", "slope": math.log(times[1] / times[0], 4)})
    return rows


def step_rows(config: TrainConfig, repeats: int) -> list[dict]:
    """One default step, and its stages as the module itself measures them."""
    module = build_module(config)
    prompts = [PROMPTS[i % 2] for i in range(config.data.batch_size // config.rollout.samples_per_prompt)]
    seconds: list[dict[str, float]] = []
    optimizer = torch.optim.AdamW(module.music.lm.parameters(), 0.0)

    def step() -> None:
        module.forget()
        start = time.perf_counter()
        module.training_step(PromptBatch(prompts, list(range(len(prompts)))), 0).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append({**module.record.seconds, "whole step": time.perf_counter() - start})

    alternate({"step": step}, repeats)
    stages = {name: median(one[name] for one in seconds[1:]) for name in seconds[0]}
    return [row(f"training step of {config.data.batch_size} sequences: {name}", ours=s) for name, s in stages.items()]


def row(work: str, **seconds: float) -> dict[str, Any]:
    ratio = {"times faster": seconds["library"] / seconds["ours"]} if "library" in seconds else {}
    distance = {"over the floor": seconds["ours"] / seconds["floor"]} if "floor" in seconds else {}
    return {"work": work, **seconds, **ratio, **distance}


def table(rows: list[dict[str, Any]]) -> str:
    columns = ["library", "ours", "times faster", "floor", "over the floor", "MiB", "slope"]
    cells = [[f"{r[c]:.3g}" if c in r else "" for c in columns] for r in rows]
    lines = [f"| {r['work']} | {' | '.join(c)} |" for r, c in zip(rows, cells, strict=True)]
    return "\n".join([f"| seconds of | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 32, 128], help="of the token loop (4 32 128)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--memory", action="store_true", help="measure the peak memory of scoring too")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the results (runs/bench)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    quieten_libraries()
    load, music = os.getloadavg()[0], MusicGen.load("base")
    rates = machine_rates(options.repeats)
    rows = token_loop_rows(music, options.batches, options.repeats, rates)
    codes = sampling(music, 32, music.frames(SECONDS))(1.0).codes
    audio, embedder = music.decode(codes), load_embedder("builtin")
    parts = {"codec, decode": lambda: music.decode(codes), "codec, encode": lambda: music.codec.encode(audio)}
    parts["embedder"] = lambda: embedder(audio)
    with torch.no_grad():
        rows += [row(f"{name}, 32 × 4 s", ours=t) for name, t in alternate(parts, options.repeats).items()]
    rows += step_rows(load_config(TrainConfig, "train"), options.repeats) + growth_rows(music, options.repeats)
    rows += memory_rows() if options.memory else []
    about = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, load before {load:.1f}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}; a 2048² float32 product at "
        f"{rates['flops'] / 1e9:.0f} GFLOP/s, a copy at {rates['bytes'] / 1e9:.1f} GB/s; "
        f"medians of {options.repeats}, in turn."
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps({"machine": about, "rates": rates, "rows": rows}, indent=2))
    command = "python experiments/bench.py " + " ".join(sys.argv[1:])
    (options.out / "performance.md").write_text(f"# Speed\n\n`{command}`\n\n{about}\n\n{table(rows)}\n")
    print((options.out / "performance.md").read_text())


if __name__ == "__main__":
    main()
