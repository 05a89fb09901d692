"""What a training run holds in a GPU's memory, by formula, for the sizes of MusicGen: the table of docs/scaling.md.

    .venv/bin/python experiments/memory_formula.py            # the table
    .venv/bin/python experiments/memory_formula.py --check    # the formula beside a real run of the built-in model

Weights in float32, as ``trainer.precision=bf16-mixed`` keeps them, activations of 2 bytes. Frozen text encoder and
codec are left out of the sharding. Nothing here is measured but by ``--check``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

GIB = 2**30
FRAMES_A_SECOND, CODEBOOKS, TOKENS = 50, 4, 2048
TEXT_ENCODER, CODEC = 110e6, 59e6  # T5-base encoder and EnCodec 32 kHz, parameters
LORA_RANK = 16


@dataclass(frozen=True)
class Shape:
    """Of a decoder."""

    layers: int
    width: int

    @property
    def parameters(self) -> int:
        """16 w² a layer (8 in two attentions, 8 in a feed-forward of 4 w), embeddings, and heads."""
        return self.layers * 16 * self.width**2 + CODEBOOKS * (2 * TOKENS + 1) * self.width

    @property
    def adapters(self) -> int:
        """Of a LoRA on the query and value projections of both attentions: 2 r w each."""
        return self.layers * 4 * 2 * LORA_RANK * self.width


SHAPES = {"small": Shape(24, 1024), "medium": Shape(48, 1536), "large": Shape(48, 2048)}


def step_bytes(shape: Shape, rows: int, steps: int, activation: int = 2) -> dict[str, float]:
    """What a micro-batch of ``rows`` sequences of ``steps`` delayed steps needs.

    Cache: keys and values of one pass without guidance, 2 L w a token, free again after the rollout. Activations: about
    34 values of ``w`` a token and layer (no dropout, no attention matrix: it is fused). Logits: Q·V a step, of student
    and teacher, their log-softmaxes and the gradient: 6 in float32.
    """
    tokens = rows * steps
    return {
        "cache": tokens * 2 * shape.layers * shape.width * 4,
        "activations": tokens * shape.layers * 34 * shape.width * activation,
        "logits": tokens * CODEBOOKS * TOKENS * 6 * 4,
    }


def run_bytes(shape: Shape, seconds: int, way: str, ranks: int, rows: int) -> float:
    """Bytes a rank: weights, teacher, gradient and two moments, and the larger of rollout and update.

    Args:
        way: ``ddp``, ``lora`` (the frozen base is its own teacher) or ``fsdp`` (weights, gradient and moments
            sharded, but whole weights for the rollout).
    """
    p, frozen = shape.parameters * 4, (TEXT_ENCODER + CODEC) * 4
    step = step_bytes(shape, rows, seconds * FRAMES_A_SECOND + CODEBOOKS - 1)
    update = step["activations"] + step["logits"]
    if way == "lora":
        return frozen + p + 4 * shape.adapters * 4 + max(step["cache"], update)
    if way == "ddp":
        return frozen + 5 * p + max(step["cache"], update)
    return frozen + 5 * p / ranks + max(p + step["cache"], update)


def table(ranks: int, rows: int) -> str:
    lines = [
        "| model | parameters | clip | DDP | FSDP | LoRA | of it cache | of it activations and logits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        for seconds in (10, 30):
            step = step_bytes(shape, rows, seconds * FRAMES_A_SECOND + CODEBOOKS - 1)
            sizes = [run_bytes(shape, seconds, way, ranks, rows) for way in ("ddp", "fsdp", "lora")]
            sizes += [step["cache"], step["activations"] + step["logits"]]
            cells = " | ".join(f"{size / GIB:.0f} GiB" for size in sizes)
            lines.append(f"| {name} | {shape.parameters / 1e9:.2f} B | {seconds} s | {cells} |")
    return "\n".join(lines)


def check() -> str:
    """Bytes that autograd keeps for the built-in model's student pass, beside the formula's activations."""
    import torch

    from qd.models.delay import delay
    from qd.models.musicgen import MusicGen

    music, rows, frames = MusicGen.load("base"), 8, 100
    lm, config = music.lm, music.lm.decoder.config
    codes = torch.randint(lm.codebook_size, (rows, lm.codebooks, frames), generator=torch.Generator().manual_seed(0))
    delayed, _ = delay(codes, lm.pad, lm.channels)
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in lm.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = lm.hidden_states(delayed, music.condition(["a calm piano piece"] * rows))
    shape = Shape(config.num_hidden_layers, config.hidden_size)
    formula = step_bytes(shape, rows, delayed.shape[-1], activation=4)["activations"]
    real = sum(kept.values())
    del hidden
    return f"activations: {real / 2**20:.1f} MiB kept, {formula / 2**20:.1f} MiB by formula, ratio {real / formula:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=8, help="GPUs of the FSDP column (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=8, help="micro-batch, sequences (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare with a pass of the built-in model")
    options = parser.parse_args()
    print(check() if options.check else table(options.ranks, options.rows))


if __name__ == "__main__":
    main()
