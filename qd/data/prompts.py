"""The endless stream of training prompts, a pure function of (seed, position).

Nothing is remembered between prompts: a step's positions follow from its number, so a run that is resumed, or spread
over other ranks, micro-batches or workers, sees at each step the prompts that it would have seen anyway. Prefetching
cannot make it stale.
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

BLOCK = 1024  # in every so many consecutive prompts, each source has exactly its share


class PromptBatch(NamedTuple):
    """The prompts of one micro-batch and their positions in the stream, which no other micro-batch shares."""

    prompts: list[str]
    positions: list[int]


class PromptStream:
    """A weighted mixture of prompt sources: ``stream[i]`` is prompt i, for any i ≥ 0.

    A source that has an end is gone through in a new order each time, so that all its prompts come equally often. The
    built-in grammar has none, unless ``size`` gives it one.

    Args:
        sources: where prompts come from, with their weights.
        seed: of the order.

    Raises:
        ValueError: a prompt file is unusable, or a weight is too small for its source ever to be drawn.
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
        """For each position of a block, the source and how often that source came before in the block."""
        order = np.repeat(np.arange(len(self._shares)), self._shares)
        np.random.default_rng([self._seed, len(self._shares), block]).shuffle(order)
        earlier = np.zeros(BLOCK, dtype=np.int64)
        for source, share in enumerate(self._shares):
            earlier[order == source] = np.arange(share)
        return order, earlier


class _Shuffled:
    """Item i of one source, endlessly."""

    def __init__(self, source: PromptSource, seed: list[int]) -> None:
        self._texts = None if source.kind == "builtin" else source.file.read().first(source.size).texts
        self._size = source.size if self._texts is None else len(self._texts)
        self._seed = seed
        self._start = int(np.random.default_rng(seed).integers(2**40))
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __getitem__(self, item: int) -> str:
        if self._size is None:
            return world.prompt("train", self._start + item)
        epoch, place = divmod(item, self._size)
        index = int(self._order(epoch)[place])
        return _grammar(index) if self._texts is None else self._texts[index]

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, epoch]).permutation(self._size)


@cache
def _grammar(index: int) -> str:
    return world.prompt("train", index)


def _shares(weights: Sequence[float]) -> np.ndarray:
    """How many prompts of a block each source gives: largest remainders."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * BLOCK
    if (exact < 1).any():
        raise ValueError(f"prompt source weights are {list(weights)}; each must be 1/{BLOCK} of their sum or more")
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: BLOCK - shares.sum()]] += 1
    return shares


class PromptBatches(IterableDataset):
    """The micro-batches of one rank, endlessly, from micro-batch ``start`` of that rank on.

    Micro-batch k of rank r of R holds the prompts at positions (k·R + r)·P … (k·R + r)·P + P − 1; its loader workers
    take turns.
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

    The position is saved with the run as what it derives from, the step: a loader made by a trainer that was resumed at
    step s starts with the prompts of step s.

    Args:
        sources: the mixture, see ``PromptStream``.
        batch_size: sequences an optimiser step, over all ranks and accumulated micro-batches.
        micro_batch_size: sequences a rank holds at once.
        samples_per_prompt: N, sequences a prompt.
        seed: of the stream.
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
        """Micro-batches of a rank that make an optimiser step.

        Raises:
            ValueError: the batch cannot be shared evenly among the ranks.
        """
        together = self.micro_batch_size * ranks
        if self.batch_size % together:
            raise ValueError(
                f"data.batch_size={self.batch_size} is no multiple of {together}, which is data.micro_batch_size="
                f"{self.micro_batch_size} times {ranks} ranks; change one of them"
            )
        return self.batch_size // together

    def train_dataloader(self) -> DataLoader:
        """Micro-batches from the trainer's optimiser step on."""
        trainer = self.trainer
        start = trainer.global_step * self.accumulation(trainer.world_size)
        prompts = self.micro_batch_size // self.samples_per_prompt
        batches = PromptBatches(self.stream, prompts, trainer.global_rank, trainer.world_size, start)
        return DataLoader(batches, batch_size=None)
