"""How long a training step takes at least, by formula: operations and bytes over what a device does in a second."""

from __future__ import annotations

from dataclasses import dataclass

from qd.modules.budget.size import RunSize
from qd.objectives.distillation import rows_at_once

LAUNCHES_A_LAYER = 11
"""Kernels of a decoder layer in one step of the token loop, one after another in the graph that a GPU replays: six
products, three norms and two attentions."""


@dataclass(frozen=True)
class Rates:
    """Of a device.

    Attributes:
        operations: floating-point operations a second that products of matrices reach, not those of its data sheet.
        bandwidth: of its memory, bytes a second.
        launch: seconds of a kernel's beginning and end, on a GPU.
    """

    operations: float
    bandwidth: float
    launch: float = 0.0


def step_seconds(size: RunSize, rates: Rates, micro_batches: int = 1, guided: bool = True) -> dict[str, float]:
    """Seconds of a rank's optimiser step by what it does: so many micro-batches of ``size``, and the optimiser.

    Left out: the codec and the embedder, and what the ranks send each other.

    Args:
        guided: whether the teacher has negative rows beside the conditional ones.
    """
    seconds = {
        "rollout": rollout_seconds(size, rates),
        "teacher": teacher_operations(size, guided) / rates.operations,
        "student": student_operations(size) / rates.operations,
    }
    return {name: micro_batches * value for name, value in seconds.items()} | {
        "optimiser": optimiser_bytes(size) / rates.bandwidth
    }


def rollout_seconds(size: RunSize, rates: Rates, guided: bool = False) -> float:
    """Of the token loop: in each of its steps the longer of two limits, and what the kernels take beside them.

    The products of B tokens with the weights (2B of guided ones, with the heads once), and the scores of attention, at
    S/2 tokens in the mean; and reading weights and cache once. A kernel begins and ends with little to do.
    """
    rows = size.rows * (2 if guided else 1)
    cache = rows * size.layers * 2 * size.width * size.steps / 2
    products = rows * _layer_weights(size) + size.rows * size.head_weights
    read = size.product_bytes * (_layer_weights(size) + size.head_weights + cache)
    longer = max(2 * (products + cache) / rates.operations, read / rates.bandwidth)
    return size.steps * (longer + LAUNCHES_A_LAYER * size.layers * rates.launch)


def teacher_operations(size: RunSize, guided: bool = True) -> float:
    """One forward pass over B sequences, or 2B; the heads read the guided states, B, twice where scored in chunks."""
    layers, heads = _forward_operations(size)
    return (2 if guided else 1) * layers + _scorings(size) * heads


def student_operations(size: RunSize) -> float:
    """Forward, and backward twice as much; forward once more with checkpoints, and of heads scored in chunks."""
    layers, heads = _forward_operations(size)
    return (4 if size.checkpointing else 3) * layers + (_scorings(size) + 2) * heads


def optimiser_bytes(size: RunSize) -> float:
    """AdamW reads a weight, its gradient and two moments, and writes all but the gradient: 7 float32 values."""
    return 28 * size.trained / size.shards


def _forward_operations(size: RunSize) -> tuple[float, float]:
    """Of the layers and of the heads, for a micro-batch: 2 a weight and token; attention to S/2 tokens in the mean."""
    tokens = size.rows * size.steps
    attention = 2 * size.layers * size.width * size.steps
    return tokens * (2 * _layer_weights(size) + attention), tokens * 2 * size.head_weights


def _layer_weights(size: RunSize) -> int:
    """That a token is multiplied with; keys and values of the text (2 w² a layer) are made once a prompt."""
    return size.matrix_weights - size.head_weights - 2 * size.layers * size.width**2


def _scorings(size: RunSize) -> int:
    """Forward passes of the heads: chunks are computed again when the gradient comes."""
    return 1 if rows_at_once(size.codebooks * size.steps * size.vocabulary) >= size.rows else 2
