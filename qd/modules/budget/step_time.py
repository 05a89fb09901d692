"""A lower bound of the time of a training step, by formula: operations and bytes over the rates of a device."""

from __future__ import annotations

from dataclasses import dataclass

from qd.modules.budget.size import RunSize
from qd.objectives.distillation import rows_at_once

LAUNCHES_A_LAYER = 11
"""Kernels that a decoder layer launches in one step of the token loop, one after another in the GPU graph: six
products, three norms and two attentions."""


@dataclass(frozen=True)
class Rates:
    """Rates of a device.

    Attributes:
        operations: Floating-point operations per second that matrix products reach, not those of the data sheet.
        bandwidth: Bytes per second of its memory.
        launch: Seconds to start and end a kernel, on a GPU.
    """

    operations: float
    bandwidth: float
    launch: float = 0.0


def step_seconds(size: RunSize, rates: Rates, micro_batches: int = 1, guided: bool = True) -> dict[str, float]:
    """Returns the seconds of a rank's optimiser step by stage.

    Codec, embedder and communication between ranks are left out.

    Args:
        size: Size of a micro-batch.
        rates: Rates of the device.
        micro_batches: Micro-batches of an optimiser step.
        guided: Whether the teacher scores a negative row for each sequence.
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
    """Returns the seconds of the token loop: in each step the longer of two limits, plus the launches of the kernels.

    One limit is arithmetic: the products of B tokens with the weights (with guidance 2B, but the heads once) and the
    attention to S/2 tokens on average. The other is memory: weights and cache are read once. A kernel takes
    ``rates.launch`` in addition.

    Args:
        size: Size of a micro-batch.
        rates: Rates of the device.
        guided: Whether each sequence has a negative row.
    """
    rows = size.rows * (2 if guided else 1)
    cache = rows * size.layers * 2 * size.width * size.steps / 2
    products = rows * _layer_weights(size) + size.rows * size.head_weights
    read = size.product_bytes * (_layer_weights(size) + size.head_weights + cache)
    longer = max(2 * (products + cache) / rates.operations, read / rates.bandwidth)
    return size.steps * (longer + LAUNCHES_A_LAYER * size.layers * rates.launch)


def teacher_operations(size: RunSize, guided: bool = True) -> float:
    """Returns the operations of one forward pass over B sequences, or 2B with guidance.

    The heads read the B guided states: once, or twice where they are scored in chunks.
    """
    layers, heads = _forward_operations(size)
    return (2 if guided else 1) * layers + _scorings(size) * heads


def student_operations(size: RunSize) -> float:
    """Returns the operations of a forward pass, and of a backward pass, which has twice as many.

    Activation checkpointing adds a forward pass of the layers, and scoring in chunks one of the heads.
    """
    layers, heads = _forward_operations(size)
    return (4 if size.checkpointing else 3) * layers + (_scorings(size) + 2) * heads


def optimiser_bytes(size: RunSize) -> float:
    """Returns the bytes that AdamW moves: it reads weight, gradient and moments, and writes all but the gradient."""
    return 28 * size.trained / size.shards


def _forward_operations(size: RunSize) -> tuple[float, float]:
    """Returns the operations of layers and heads in a forward pass: 2 for each weight and token.

    Attention reads S/2 tokens on average.
    """
    tokens = size.rows * size.steps
    attention = 2 * size.layers * size.width * size.steps
    return tokens * (2 * _layer_weights(size) + attention), tokens * 2 * size.head_weights


def _layer_weights(size: RunSize) -> int:
    """Returns the layer weights that each token is multiplied with.

    Those for keys and values of the text, 2 · width² in each layer, are used once for a prompt and do not count.
    """
    return size.matrix_weights - size.head_weights - 2 * size.layers * size.width**2


def _scorings(size: RunSize) -> int:
    """Returns the number of forward passes of the heads: 2 where the backward pass recomputes chunks, else 1."""
    return 1 if rows_at_once(size.codebooks * size.steps * size.vocabulary) >= size.rows else 2
