"""Checks, before a run begins, that the prompts fit into the model's text encoder."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from qd.data.prompt_files import LINES_IN_MESSAGE, PromptFile, Prompts
from qd.metrics.formatting import first_items

UNLIMITED = 10**9
"""A larger ``model_max_length`` means no limit; transformers uses 1e30."""


def named_list(file: str | None, size: int | None) -> list[tuple[str, Prompts]]:
    """Returns the first ``size`` prompts of the file that ``--prompts`` names, with the setting's name."""
    return [("prompts", PromptFile.parse(file).read().first(size))] if file else []


def prompt_report(lists: Iterable[tuple[str, Prompts]]) -> str:
    """Returns one line per list: the number of prompts and the skipped lines."""
    return "".join(f"{path}: {prompts.summary()}\n" for path, prompts in lists)


def unreadable_lists(lists: Iterable[tuple[str, Prompts]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns one sentence for each list with too long prompts; it begins with the path of the list's setting."""
    problems = ((path, too_long(prompts, tokenizer)) for path, prompts in lists)
    return [f"{path}: {problem}" for path, problem in problems if problem]


def too_long(prompts: Prompts, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns a sentence that lists the prompts above the tokenizer's limit; None if all fit.

    Args:
        prompts: Prompts of a file.
        tokenizer: Tokenizer of the model; its ``model_max_length`` includes the special tokens that it adds.
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
