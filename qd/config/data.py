"""The training prompts, and the batches made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qd.config.checks import unreadable
from qd.data.prompt_files import FILE_KINDS
from qd.data.prompt_sources import PromptSource
from qd.data.prompts import BLOCK
from qd.schema.checker import Settings
from qd.schema.setting import setting


@dataclass
class DataConfig(Settings):
    """Training prompts and batches."""

    batch_size: int = setting(
        16, "Sequences per optimiser step, over all ranks and accumulated micro-batches.", unit="sequences", ge=1
    )
    micro_batch_size: int = setting(
        16, "Sequences that a rank holds at once; it contains all N samples of a prompt.", unit="sequences", ge=1
    )
    prompts: list[PromptSource] = setting(
        lambda: [PromptSource(size=256)], "Sources of prompts, mixed by weight.", nonempty=True
    )

    def rules(self, prefix: str) -> Iterator[str]:
        if min(self.batch_size, self.micro_batch_size) >= 1 and self.batch_size % self.micro_batch_size:
            yield (
                f"{prefix}batch_size={self.batch_size} is not a multiple of "
                f"{prefix}micro_batch_size={self.micro_batch_size}"
            )
        total = sum(source.weight for source in self.prompts)
        for i, source in enumerate(self.prompts):
            path = f"{prefix}prompts[{i}]"
            yield from _source_problems(path, source)
            if 0 < source.weight < total / BLOCK:
                yield f"{path}.weight is {source.weight}; expected 1/{BLOCK} of the sum of all weights, or more"


def _source_problems(path: str, source: PromptSource) -> Iterator[str]:
    """Problems of the file of a source, and of settings that its kind does not use."""
    usable = {"path": FILE_KINDS, "column": ("csv", "tsv", "jsonl")}
    unused = [name for name, kinds in usable.items() if getattr(source, name) and source.kind not in kinds]
    for name in unused:
        yield f"{path}.{name} is set, but a source of kind {source.kind!r} has none; change one"
    if source.kind in FILE_KINDS and not source.path:
        yield f"{path}.path is missing; a source of kind {source.kind!r} needs it"
    elif source.kind in FILE_KINDS:
        yield from unreadable(path, source.file)
