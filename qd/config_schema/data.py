"""The training prompts, and the batches that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from qd.config_checks import bounded, one_of, positive, unreadable
from qd.data.prompt_files import FILE_KINDS, PromptFile
from qd.data.prompts import BLOCK

SOURCE_KINDS = ("builtin", "generic", *FILE_KINDS)


@dataclass
class PromptSource:
    kind: str = "builtin"  # "builtin" (the grammar), "generic" (the shipped list), or how path is read: "text" (one
    # prompt a line), "csv", "jsonl", "musiccaps" or "song-describer"
    path: str | None = None  # of the file, UTF-8
    column: str | None = None  # of a CSV file, or key of a JSONL file; null = prompt, caption or text
    weight: float = 1.0  # share of the mixture, relative to the other sources, > 0
    size: int | None = None  # use only the first so many prompts, which then repeat; null = all there are

    @property
    def file(self) -> PromptFile:
        """The list that is read; of the kind "builtin" there is none."""
        return PromptFile(self.kind, self.path, self.column)

    def problems(self, path: str) -> list[str]:
        found = [
            *one_of(f"{path}.kind", self.kind, SOURCE_KINDS),
            *positive(f"{path}.weight", self.weight),
            *(bounded(f"{path}.size", self.size, 1) if self.size is not None else []),
        ]
        usable = {"path": FILE_KINDS, "column": ("csv", "jsonl")}
        unused = [name for name, kinds in usable.items() if getattr(self, name) and self.kind not in kinds]
        found += [f"{path}.{name} is given, and a source of kind {self.kind!r} has none; change one" for name in unused]
        if self.kind not in FILE_KINDS:
            return found
        if not self.path:
            return [*found, f"{path}.path is missing; a source of kind {self.kind!r} needs it"]
        return found + unreadable(path, self.file)


@dataclass
class DataConfig:
    batch_size: int = 16  # sequences an optimiser step, over all ranks and accumulated micro-batches
    micro_batch_size: int = 16  # sequences a rank holds at once; all N samples of a prompt are in one
    prompts: list[PromptSource] = field(default_factory=lambda: [PromptSource(size=256)])  # weighted mixture

    def problems(self) -> list[str]:
        found = [
            *bounded("data.batch_size", self.batch_size, 1),
            *bounded("data.micro_batch_size", self.micro_batch_size, 1),
            *([] if self.prompts else ["data.prompts is empty; give a source, for example [{kind: builtin}]"]),
        ]
        if not found and self.batch_size % self.micro_batch_size:
            found.append(
                f"data.batch_size={self.batch_size} is no multiple of data.micro_batch_size={self.micro_batch_size}"
            )
        total = sum(source.weight for source in self.prompts)
        for i, source in enumerate(self.prompts):
            found += source.problems(f"data.prompts[{i}]")
            if 0 < source.weight < total / BLOCK:
                found.append(f"data.prompts[{i}].weight is {source.weight}; expected 1/{BLOCK} of all weights or more")
        return found
