"""Sources of training prompts."""

from __future__ import annotations

from dataclasses import dataclass

from qd.data.prompt_files import FILE_KINDS, PromptFile
from qd.schema.setting import setting

SOURCE_KINDS = ("builtin", "generic", *FILE_KINDS)


@dataclass
class PromptSource:
    """One source of training prompts."""

    kind: str = setting(
        "builtin",
        "Source: builtin (the grammar), generic (the shipped list), or the format of the file: text (one prompt a "
        "line), csv, tsv, jsonl, musiccaps or song-describer.",
        choices=SOURCE_KINDS,
    )
    path: str | None = setting(None, "UTF-8 file of the prompts.", path=True)
    column: str | None = setting(
        None,
        "Column of a CSV or TSV file, or key of a JSONL file; null: the first of prompt, caption and text that exists.",
    )
    weight: float = setting(1.0, "Share of the mixture, relative to the other sources.", gt=0)
    size: int | None = setting(None, "Number of prompts to use, the first ones, which then repeat; null: all.", ge=1)

    @property
    def file(self) -> PromptFile:
        """The prompt file; not for the kind "builtin"."""
        return PromptFile(self.kind, self.path, self.column)
