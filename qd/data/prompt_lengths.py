"""Whether a model's text encoder can read the prompts of a run, told before the run begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from qd.data.prompt_files import LINES_IN_MESSAGE, PromptFile, Prompts
from qd.metrics.formatting import first_items

if TYPE_CHECKING:
    pass

UNLIMITED = 10**9
"""A tokenizer whose files state no limit has one of 1e30."""


def named_list(file: str | None, size: int | None) -> list[tuple[str, Prompts]]:
    """The list that ``--prompts`` of a command that measures names, if it names one; of the file the first ``size``."""
    return [("prompts", PromptFile.parse(file).read().first(size))] if file else []


def prompt_report(lists: Iterable[tuple[str, Prompts]]) -> str:
    """A line for each list: how many prompts, and which lines were skipped."""
    return "".join(f"{path}: {prompts.summary()}\n" for path, prompts in lists)


def unreadable_lists(lists: Iterable[tuple[str, Prompts]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """One sentence for each list with prompts that are too long, by the path of the setting that names it."""
    found = ((path, too_long(prompts, tokenizer)) for path, prompts in lists)
    return [f"{path}: {problem}" for path, problem in found if problem]


def too_long(prompts: Prompts, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What is wrong with the length of prompts, if anything.

    Args:
        prompts: of a file.
        tokenizer: of the model; its ``model_max_length`` counts all tokens, those that it adds too.
    """
    limit = tokenizer.model_max_length
    if limit >= UNLIMITED:
        return None
    lengths = [len(ids) for ids in tokenizer(prompts.texts, verbose=False)["input_ids"]]
    long = [(line, length) for line, length in zip(prompts.lines, lengths, strict=True) if length > limit]
    if not long:
        return None
    lines = first_items([f"line {line} ({length:,})" for line, length in long], LINES_IN_MESSAGE)
    return (
        f"{prompts.name}: {len(long):,} too long for the model's text encoder, which reads {limit:,} tokens: "
        f"{lines}; shorten or remove them"
    )
