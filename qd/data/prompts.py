"""The endless stream of training prompts, a pure function of (seed, position).

There is no state between prompts: a step's positions depend only on its number. A step has the same prompts after a
resume and for any number of ranks, micro-batches and workers, and prefetching cannot change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from qd.data.world import world

if TYPE_CHECKING:
    from qd.data.prompt_sources import PromptSource

BLOCK = 1024  # consecutive prompts in which each source has exactly its share


class PromptBatch(NamedTuple):
    """Prompts of one micro-batch and their positions in the stream, unique to this micro-batch."""

    prompts: list[str]
    positions: list[int]


class PromptStream:
    """A weighted mixture of prompt sources: ``stream[i]`` is prompt i, for any i ≥ 0.

    A finite source is repeated in a new order each time, so that all its prompts occur equally often. The built-in
    grammar is infinite unless ``size`` limits it.

    Args:
        sources: Prompt sources with their weights.
        seed: Seed for the order.

    Raises:
        ValueError: A prompt file is unusable, or a weight is too small to give its source one prompt per block.
    """

    def __init__(self, sources: Sequence[PromptSource], seed: int) -> None:
        self._sources = [_Shuffled(source, [seed, number]) for number, source in enumerate(sources)]
        self._shares = _shares([source.weight for source in sources])
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._draw_block)

    def __getitem__(self, position: int) -> str:
        block, offset = divmod(position, BLOCK)
        source, earlier = (int(column[offset]) for column in self._block(block))
        return self._sources[source][block * int(self._shares[source]) + earlier]

    def _draw_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns each position's source, and how many prompts of that source precede it in the block."""
        order = np.repeat(np.arange(len(self._shares)), self._shares)
        np.random.default_rng([self._seed, len(self._shares), block]).shuffle(order)
        earlier = np.zeros(BLOCK, dtype=np.int64)
        for source, share in enumerate(self._shares):
            earlier[order == source] = np.arange(share)
        return order, earlier


class _Shuffled:
    """Prompts of one source by index, without end."""

    def __init__(self, source: PromptSource, seed: list[int]) -> None:
        self._texts = None if source.kind == "builtin" else source.file.read().first(source.size).texts
        self._size = source.size if self._texts is None else len(self._texts)
        self._seed = seed
        self._start = int(np.random.default_rng(seed).integers(2**40))
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __getitem__(self, item: int) -> str:
        if self._size is None:
            return world.prompt("train", self._start + item)
        epoch, offset = divmod(item, self._size)
        index = int(self._order(epoch)[offset])
        return _grammar(index) if self._texts is None else self._texts[index]

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, epoch]).permutation(self._size)


@cache
def _grammar(index: int) -> str:
    return world.prompt("train", index)


def _shares(weights: Sequence[float]) -> np.ndarray:
    """Returns each source's number of prompts in a block, by the largest-remainder method."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * BLOCK
    if (exact < 1).any():
        raise ValueError(f"prompt source weights are {list(weights)}; each must be at least 1/{BLOCK} of their sum")
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: BLOCK - shares.sum()]] += 1
    return shares


class PromptBatches(IterableDataset):
    """Endless micro-batches of one rank, from its micro-batch ``start`` on.

    Micro-batch k of rank r of R contains the P prompts at positions (k·R + r)·P … (k·R + r)·P + P − 1; the loader's
    workers take turns.
    """

    def __init__(self, stream: PromptStream, prompts: int, rank: int, ranks: int, start: int) -> None:
        self.stream, self.prompts, self.rank, self.ranks, self.start = stream, prompts, rank, ranks, start

    def __iter__(self) -> Iterator[PromptBatch]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for batch in count(self.start + first, stride):
            begin = (batch * self.ranks + self.rank) * self.prompts
            positions = list(range(begin, begin + self.prompts))
            yield PromptBatch([self.stream[position] for position in positions], positions)


class PromptDataModule(pl.LightningDataModule):
    """Gives every optimiser step its own ``batch_size / samples_per_prompt`` prompts of the stream.

    The position needs no checkpoint of its own because it depends only on the step: a loader of a trainer resumed at
    step s starts with the prompts of step s.

    Args:
        sources: Mixture of prompt sources, see ``PromptStream``.
        batch_size: Sequences per optimiser step, over all ranks and accumulated micro-batches.
        micro_batch_size: Sequences that a rank holds at once.
        samples_per_prompt: Sequences per prompt, N.
        seed: Seed of the stream.
    """

    def __init__(
        self,
        sources: Sequence[PromptSource],
        *,
        batch_size: int,
        micro_batch_size: int,
        samples_per_prompt: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.stream = PromptStream(sources, seed)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.samples_per_prompt = samples_per_prompt

    def accumulation(self, ranks: int) -> int:
        """Returns the micro-batches per rank and optimiser step.

        Raises:
            ValueError: The batch cannot be divided evenly among the ranks.
        """
        together = self.micro_batch_size * ranks
        if self.batch_size % together:
            raise ValueError(
                f"data.batch_size={self.batch_size} is not a multiple of {together}, which is data.micro_batch_size="
                f"{self.micro_batch_size} times {ranks} ranks; change one of them"
            )
        return self.batch_size // together

    def train_dataloader(self) -> DataLoader:
        """Returns the micro-batches from the trainer's optimiser step on."""
        trainer = self.trainer
        start = trainer.global_step * self.accumulation(trainer.world_size)
        prompts = self.micro_batch_size // self.samples_per_prompt
        batches = PromptBatches(self.stream, prompts, trainer.global_rank, trainer.world_size, start)
        return DataLoader(batches, batch_size=None)
