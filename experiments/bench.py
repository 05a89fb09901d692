"""Speed of sampling, scoring, codec, embedder and the whole step, next to the library's and the machine's limits.

    python experiments/bench.py [--batches 4 32 128] [--repeats 3] [--threads 2] [--no-memory] [--out DIR] [--page FILE]

Everything runs in one process, in turn (A B A B …); a row is the median of the repeats after one uncounted round.
The floor of a row is the larger of two times: its multiplications at the rate of a 2048² float32 product, and its bytes
at the bandwidth of a copy. Both rates are measured in the same rounds as the row. Peak memory of KL and
log-probabilities at the shape of musicgen-small, 32 clips of 10 s, is measured in a separate process for each form (one
or two minutes, 5 GiB; ``--no-memory`` skips it). The time of a default run is a sum, because no run here is that long.
Writes ``bench.json`` and ``performance.md`` into DIR, and the same table into the page FILE, between its two marks.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
import transformers
from bench_tools import (
    RUN,
    WHOLE,
    MachineRates,
    alternate,
    alternate_with_rates,
    check_page,
    flops_of,
    goals_table,
    library_tokens,
    row,
    table,
    update_page,
)
from profile_step import PROMPTS, build_module
from scoring_memory import memory_row
from transformers import MusicgenForCausalLM

from qd.config.loading import load_config
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.evaluation.evaluator import build_evaluator, load_scorers
from qd.evaluation.measure import EvaluationModels
from qd.models.condition import Condition
from qd.models.delay import delayed_steps
from qd.models.embedders.loading import load_embedder
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.modules.budget.size import RunSize
from qd.modules.budget.step_time import Rates, rollout_seconds
from qd.modules.distillation import DiversityDistillation
from qd.runs.devices import resolve_device
from qd.runs.disk import try_writing
from qd.runs.quiet import quieten_libraries
from qd.schema.paths import home_path

SECONDS, GUIDANCE, TEMPERATURE = 4.0, 3.0, 0.99


def sampling(music: MusicGen, batch: int, frames: int, lm: LanguageModel | None = None) -> Callable[[float], object]:
    """Our token loop, as a function of the guidance scale; 8 samples a prompt, fewer in a smaller batch."""
    lm, condition = lm or music.lm, conditions(music, batch)
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


def loop_floor(music: MusicGen, batch: int, frames: int, guided: bool, rates: MachineRates) -> float:
    """Seconds for the token loop's weight products, or for reading weights and caches once a step, if longer."""
    lm, config = music.lm, music.lm.decoder.config
    weights, steps = sum(p.numel() for p in lm.parameters()), delayed_steps(lm.codebooks, frames, lm.channels)
    shape = (config.num_hidden_layers, config.hidden_size, lm.codebooks, lm.codebook_size)
    size = RunSize(*shape, weights, rows=batch, steps=steps)
    return rollout_seconds(size, Rates(rates.flops, rates.bandwidth), guided)


def token_loop_rows(music: MusicGen, batches: Sequence[int], repeats: int) -> list[dict]:
    frames, generate, rows = music.frames(SECONDS), library_tokens(music), []
    for batch in batches:
        ours, condition = sampling(music, batch, frames), conditions(music, batch)
        for scale in (1.0, GUIDANCE):
            times, rates = alternate_with_rates(
                {
                    "reference": lambda c=condition, s=scale: generate(c, frames, s),
                    "ours": lambda f=ours, s=scale: f(s),
                },
                repeats,
            )
            floor = loop_floor(music, batch, frames, scale != 1, rates)
            name = f"token loop, {batch} × {SECONDS:g} s, guidance {scale:g}"
            rows.append(row(name, **times, floor=floor, gflops=rates.flops / 1e9))
    return rows


def growth_rows(music: MusicGen, repeats: int) -> list[dict]:
    """Exponents of the loop's time in batch size, clip length and codebooks, from a fourfold increase; 1 is linear.

    The decoder with more codebooks has random weights, because only its time matters.
    """
    frames = music.frames(SECONDS)
    more = copy.deepcopy(music.lm.decoder.config)
    more.num_codebooks *= 4
    books = LanguageModel(MusicgenForCausalLM(more), copy.deepcopy(music.lm.projection))
    few = sampling(music, 32, frames)
    cases = {
        "batch": sampling(music, 128, frames),
        "frames": sampling(music, 32, 4 * frames),
        "codebooks": sampling(music, 32, frames, books),
    }
    rows = []
    for name, many in cases.items():
        times = alternate({"few": lambda: few(1.0), "many": lambda f=many: f(1.0)}, repeats)
        slope = math.log(times["many"] / times["few"], 4)
        rows.append({"work": f"growth of the token loop with {name}", "slope": slope})
    return rows


def codec_and_embedder_rows(music: MusicGen, repeats: int) -> list[dict]:
    codes = sampling(music, 32, music.frames(SECONDS))(1.0).codes
    audio, embedder = music.decode(codes), load_embedder("builtin")
    parts = {"codec, decode": lambda: music.decode(codes), "codec, encode": lambda: music.codec.encode(audio)}
    parts["embedder"] = lambda: embedder(audio)
    with torch.no_grad():
        times, rates = alternate_with_rates(parts, repeats)
        floors = {name: flops_of(work) / rates.flops for name, work in parts.items()}
    gflops = rates.flops / 1e9
    return [row(f"{name}, 32 × {SECONDS:g} s", ours=times[name], floor=floors[name], gflops=gflops) for name in parts]


def step_rows(module: DiversityDistillation, repeats: int) -> tuple[list[dict], MachineRates]:
    """Rows for a default step and for its stages, as the module times them; and the machine's rates meanwhile."""
    config = module.config
    prompts = [PROMPTS[i % 2] for i in range(config.data.batch_size // config.rollout.samples_per_prompt)]
    seconds: list[dict[str, float]] = []
    optimizer = torch.optim.AdamW(module.music.lm.parameters(), 0.0)

    def step() -> None:
        module.reset_records()
        start = time.perf_counter()
        module.training_step(PromptBatch(prompts, list(range(len(prompts)))), 0).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append({**module.record.seconds, WHOLE: time.perf_counter() - start})

    _, rates = alternate_with_rates({"step": step}, repeats)
    stages = {name: median(one[name] for one in seconds[1:]) for name in seconds[0]}
    loop = loop_floor(module.music, config.data.batch_size, module.music.frames(SECONDS), False, rates)
    fastest = max(rates.flops, rates.half_flops)
    whole = {"floor": loop + flops_of(step) / fastest}  # torch does not count the products of the C++ loop
    name, gflops = f"training step of {config.data.batch_size} sequences: ", rates.flops / 1e9
    rows = [
        row(name + stage, ours=median_, gflops=gflops, **(whole if stage == WHOLE else {}))
        for stage, median_ in stages.items()
    ]
    return rows, rates


def run_rows(module: DiversityDistillation, step_seconds: float) -> list[dict]:
    """Measures a point with and one without guidance, and adds up the times of a default run.

    The first run in a runs folder measures the base model with and without guidance, and then the student every
    ``evaluation.every`` steps. The sum leaves out start-up, gradient diagnostics and saving.
    """
    config, device = module.config, resolve_device("cpu")
    evaluation_models = EvaluationModels(
        load_scorers(config.evaluation, device), module.embedder, load_embedder(config.reward.eval_embedder)
    )
    settings = {"seconds": config.rollout.seconds, "temperature": config.rollout.temperature}
    evaluator = build_evaluator(config.evaluation, module.music, evaluation_models, **settings)
    plain, guided = evaluator.sampling(), evaluator.sampling(config.guidance.scale, config.guidance.negative_prompt)
    seconds = [evaluator.measure(module.teacher, how).seconds for how in (plain, guided)]
    steps, points = config.trainer.max_steps, 1 + -(-config.trainer.max_steps // config.evaluation.every)
    total = steps * step_seconds + points * seconds[0] + seconds[1]
    names = (f"measurement by protocol {config.evaluation.protocol}{guidance}" for guidance in ("", ", with guidance"))
    summed = f"{RUN} of {steps} steps, a sum: {steps} steps, {points} measurements, 1 with guidance"
    return [*(row(name, ours=s) for name, s in zip(names, seconds, strict=True)), row(summed, ours=total)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 32, 128], help="batch sizes of the token loop")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory of scoring")
    parser.add_argument(
        "--out", type=home_path, default=Path("runs/bench"), help="results folder (default: runs/bench)"
    )
    parser.add_argument("--page", type=home_path, help="also update this page, such as docs/performance.md")
    options = parser.parse_args()
    if options.page:
        try:
            check_page(options.page)
        except ValueError as error:
            parser.error(str(error))
    try_writing(options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    quieten_libraries()
    load, music = os.getloadavg()[0], MusicGen.load("base")
    repeats = options.repeats
    rows = token_loop_rows(music, options.batches, repeats) + codec_and_embedder_rows(music, repeats)
    module = build_module(load_config(TrainConfig, "train", overrides=["trainer.device=cpu"]))
    steps, rates = step_rows(module, repeats)
    rows += steps
    rows += run_rows(module, next(r["ours"] for r in rows if r["work"].endswith(WHOLE)))
    rows += growth_rows(music, repeats) + ([] if options.no_memory else [memory_row()])
    about = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, load before {load:.1f}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}; measured with the training step: a 2048² "
        f"float32 product at {rates.flops / 1e9:.0f} GFLOP/s, in bfloat16 at {rates.half_flops / 1e9:.0f}, a copy at "
        f"{rates.bandwidth / 1e9:.1f} GB/s; medians of {repeats} rounds, in turn."
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=2))
    command = " ".join([".venv/bin/python experiments/bench.py", *sys.argv[1:]])
    measured = f"`{command}`\n\n{about}\n\n{table(rows)}\n\n{goals_table(rows)}\n"
    (options.out / "performance.md").write_text(f"# Speed\n\n{measured}")
    if options.page:
        update_page(options.page, measured)
    print(measured)


if __name__ == "__main__":
    main()
