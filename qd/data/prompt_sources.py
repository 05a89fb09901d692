"""Sources of training prompts."""

from __future__ import annotations

from dataclasses import dataclass

from qd.data.prompt_files import FILE_KINDS, PromptFile

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
