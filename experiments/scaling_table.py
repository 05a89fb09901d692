"""Memory and time of a training step for MusicGen's sizes on GPUs, by formula: docs/performance.md.

    .venv/bin/python experiments/scaling_table.py            # the two tables
    .venv/bin/python experiments/scaling_table.py --check    # the formula of time, compared with the built-in model

The formulas are those of ``qd/modules/budget/memory.py``, whose result is compared with the device's free memory before
a run, and of ``qd/modules/budget/step_time.py``. Precision bf16-mixed, with the teacher in float32. Only ``--check``
measures anything.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import EncodecConfig, EncodecModel

from qd.config.evaluation import EvaluationConfig
from qd.models.delay import delayed_steps
from qd.modules.budget.memory import GIB, first_measurement_bytes, needed_bytes, rollout_bytes, update_bytes
from qd.modules.budget.size import RunSize, run_size
from qd.modules.budget.step_time import Rates, rollout_seconds, step_seconds

FRAMES_A_SECOND, CODEBOOKS, TOKENS = 50, 4, 2048
TEXT_WIDTH, TEXT_ENCODER, CODEC = 768, 110e6, 59e6  # T5-base encoder and EnCodec 32 kHz, parameters
LORA_RANK = 16
SHAPES = {"small": (24, 1024), "medium": (48, 1536), "large": (48, 2048)}
"""Layers and width of each size."""
WAYS = ("DDP", "DDP, checkpoints", "FSDP", "LoRA")


def musicgen(
    layers: int,
    width: int,
    seconds: int,
    rows: int,
    way: str = "DDP",
    ranks: int = 1,
    measured: int = EvaluationConfig.eval_batch_size,
) -> RunSize:
    """Size of a MusicGen run. A layer has 16 w² weights: 8 w² in two attentions, 8 w² in the feed-forward layer.

    LoRA has adapters on all linear layers, with r · (inputs + outputs) weights each; inputs + outputs is 2 w for 8 of
    these layers and 5 w for two.

    Args:
        layers: Number of layers.
        width: Width w.
        seconds: Length of a clip.
        rows: Sequences in a micro-batch.
        way: One of :data:`WAYS`.
        ranks: Number of GPUs.
        measured: Sequences that a measurement samples together.
    """
    lora = way == "LoRA"
    weights = layers * 16 * width**2 + CODEBOOKS * (2 * TOKENS + 1) * width + (TEXT_WIDTH + 1) * width
    adapters = layers * LORA_RANK * 26 * width if lora else 0
    return RunSize(
        layers=layers,
        width=width,
        codebooks=CODEBOOKS,
        vocabulary=TOKENS,
        student=weights + adapters,
        trained=adapters or weights,
        adapted=layers * 16 * width**2 if lora else 0,
        teacher_bytes=0 if lora else 4 * weights,
        frozen_bytes=int(4 * (TEXT_ENCODER + CODEC)),
        rows=rows,
        steps=delayed_steps(CODEBOOKS, seconds * FRAMES_A_SECOND),
        precision="bf16-mixed",
        shards=ranks if way == "FSDP" else 1,
        checkpointing="checkpoints" in way,
        measured=measured,
        guided=True,
    )


def memory_table(ranks: int, rows: int, measured: int) -> str:
    lines = [
        f"| model | weights | clip | {' | '.join(WAYS)} | of DDP: rollout | of DDP: update | of DDP: measurement |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        for seconds in (10, 30):
            sizes = [musicgen(*shape, seconds, rows, way, ranks, measured) for way in WAYS]
            needed = [sum(needed_bytes(size).values()) for size in sizes]
            parts = (rollout_bytes, update_bytes, first_measurement_bytes)
            needed += [sum(bytes_of(sizes[0]).values()) for bytes_of in parts]
            cells = " | ".join(f"{size / GIB:.0f} GiB" for size in needed)
            lines.append(f"| {name} | {sizes[0].student / 1e9:.2f} B | {seconds} s | {cells} |")
    return "\n".join(lines)


def time_table(ranks: int, rows: int, batch: int, rates: Rates) -> str:
    """Times of a DDP rank, which processes its share of the batch in micro-batches."""
    micro_batches, codec = batch // (rows * ranks), codec_operations()
    lines = [
        "| model | clip | rollout | (without starts) | teacher | student | codec, optimiser | step | 2,000 steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        for seconds in (10, 30):
            size = musicgen(*shape, seconds, rows)
            parts = step_seconds(size, rates, micro_batches)
            free = micro_batches * rollout_seconds(size, replace(rates, launch=0))
            rest = micro_batches * rows * seconds * codec / rates.operations + parts["optimiser"]
            step = parts["rollout"] + parts["teacher"] + parts["student"] + rest
            times = [parts["rollout"], free, parts["teacher"], parts["student"], rest, step]
            cells = " | ".join(f"{time:.2f} s" for time in times)
            lines.append(f"| {name} | {seconds} s | {cells} | {2000 * step / 3600:.1f} h |")
    return "\n".join(lines)


def codec_operations() -> float:
    """Operations of the convolutions that decode one second of EnCodec at 32 kHz, counted by torch."""
    config = EncodecConfig(
        target_bandwidths=[2.2],
        sampling_rate=32_000,
        normalize=False,
        num_filters=64,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=TOKENS,
        use_causal_conv=False,
    )
    codes = torch.zeros(1, 1, CODEBOOKS, FRAMES_A_SECOND, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        EncodecModel(config).eval().decode(codes, [None])
    return counter.get_total_flops()


def check(repeats: int) -> str:
    """Measured seconds of the built-in model's default step in float32, and those of the formula for this machine."""
    from bench import step_rows
    from profile_step import build_module

    from qd.config.loading import load_config
    from qd.config.train import TrainConfig
    from qd.runs.quiet import quieten_libraries

    quieten_libraries()
    config = load_config(TrainConfig, "train", overrides=["trainer.precision=32-true", "trainer.device=cpu"])
    module = build_module(config)
    rows, measured = step_rows(module, repeats)
    seconds = {row["work"].rpartition(": ")[2]: row["ours"] for row in rows}
    rates = Rates(measured.flops, measured.bandwidth)
    formula = step_seconds(run_size(module, config), rates)
    parts = {
        "rollout": (seconds["rollout"], formula["rollout"]),
        "teacher": (seconds["teacher"], formula["teacher"]),
        "student, with loss, backward pass and optimiser": (
            seconds["whole step"] - sum(seconds[name] for name in ("rollout", "teacher", "decode", "embed")),
            formula["student"] + formula["optimiser"],
        ),
    }
    parts["sum"] = tuple(map(sum, zip(*parts.values(), strict=True)))
    lines = [
        f"{name}: {real:.3f} s, {least:.3f} s by formula, ratio {real / least:.2f}"
        for name, (real, least) in parts.items()
    ]
    lines.append(f"codec and embedder, not in the formula: {seconds['decode'] + seconds['embed']:.3f} s")
    lines.append(
        f"{rates.operations / 1e9:.0f} GFLOP/s, {rates.bandwidth / 1e9:.1f} GB/s, {torch.get_num_threads()} threads"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=8, help="number of GPUs (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=8, help="sequences in a micro-batch (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="sequences per step on all GPUs (default: %(default)s)")
    parser.add_argument(
        "--measured",
        type=int,
        default=EvaluationConfig.eval_batch_size,
        help="sequences that a measurement samples together, evaluation.eval_batch_size (default: %(default)s)",
    )
    parser.add_argument(
        "--tflops", type=float, default=989, help="bfloat16 TFLOP/s by data sheet (default: 989, H100 SXM)"
    )
    parser.add_argument(
        "--utilisation", type=float, default=0.4, help="assumed share of this rate (default: %(default)s)"
    )
    parser.add_argument(
        "--bandwidth", type=float, default=3.35, help="memory bandwidth, TB/s (default: 3.35, H100 SXM)"
    )
    parser.add_argument("--launch", type=float, default=3, help="µs to launch a kernel (default: 3, H200)")
    parser.add_argument("--check", action="store_true", help="compare with steps of the built-in model on this CPU")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds of --check (default: %(default)s)")
    options = parser.parse_args()
    if options.check:
        print(check(options.repeats))
        return
    if options.batch % (options.rows * options.ranks):
        parser.error(f"--batch {options.batch} is not a multiple of --rows {options.rows} × --ranks {options.ranks}")
    operations = options.tflops * 1e12 * options.utilisation
    rates = Rates(operations, options.bandwidth * 1e12, options.launch / 1e6)
    print(memory_table(options.ranks, options.rows, options.measured))
    print(f"\n{time_table(options.ranks, options.rows, options.batch, rates)}")


if __name__ == "__main__":
    main()
