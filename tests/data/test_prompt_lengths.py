from __future__ import annotations

from types import SimpleNamespace

import pytest

from qd.builtin.tokenizer import train_tokenizer
from qd.commands.train_preflight import length_problems, prompt_lists
from qd.config.data import DataConfig
from qd.config.evaluation import EvaluationConfig
from qd.config.policy import GuidanceConfig
from qd.data.prompt_files import PromptFile
from qd.data.prompt_lengths import prompt_report, too_long
from qd.data.prompt_sources import PromptSource

LIMIT = 6


@pytest.fixture(scope="module")
def tokenizer():
    """Tokenizer with one token per letter, and one at the end."""
    tokenizer = train_tokenizer([], vocabulary=259)
    tokenizer.model_max_length = LIMIT
    return tokenizer


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("abcde\nabcdef\n\nABCDE\nab\nabcdefgh\n")
    return str(path)


def config(
    *sources: PromptSource, evaluation: str | None = None, n_prompts: int | None = None, negative: str | None = None
):
    settings = EvaluationConfig(prompts=evaluation, n_prompts=n_prompts)
    guidance = GuidanceConfig(negative_prompt=negative)
    return SimpleNamespace(data=DataConfig(prompts=list(sources)), evaluation=settings, guidance=guidance)


def test_prompts_with_more_tokens_than_the_limit_are_listed_by_line(tokenizer, file):
    message = too_long(PromptFile("text", file).read(), tokenizer)
    assert message.startswith(f"prompt file {file!r}: 2 too long") and "6 tokens: line 2 (7), line 6 (9);" in message


def test_a_long_list_of_problems_is_shortened(tokenizer, tmp_path):
    (tmp_path / "long.txt").write_text("".join(f"abcdefgh{n}\n" for n in range(8)))
    assert "line 5 (10) and 3 more; shorten" in too_long(PromptFile.parse(str(tmp_path / "long.txt")).read(), tokenizer)


def test_only_prompts_that_are_used_count(tokenizer, file):
    assert length_problems(config(PromptSource(), PromptSource("text", file, size=1)), tokenizer) == []
    both = config(PromptSource(), PromptSource("text", file), evaluation=file, n_prompts=2)
    problems = length_problems(both, tokenizer)
    assert [problem.split(": ")[0] for problem in problems] == ["data.prompts[1]", "evaluation.prompts"]
    assert "line 2 (7), line 6 (9);" in problems[0] and "line 2 (7); shorten" in problems[1]


def test_a_negative_prompt_must_fit_too(tokenizer):
    assert length_problems(config(negative="abcde"), tokenizer) == []
    (problem,) = length_problems(config(negative="abcdef"), tokenizer)
    assert problem.startswith("guidance.negative_prompt has 7 tokens") and " 6;" in problem


def test_a_tokenizer_without_a_limit_accepts_all_prompts(file):
    tokenizer = train_tokenizer([], vocabulary=259)
    assert tokenizer.model_max_length == 512
    tokenizer.model_max_length = int(1e30)
    assert length_problems(config(PromptSource("text", file)), tokenizer) == []


def test_the_report_has_a_line_for_each_list(file):
    both = config(PromptSource("generic"), PromptSource("text", file), evaluation=file)
    lines = prompt_report(prompt_lists(both)).splitlines()
    assert lines[0] == "data.prompts[0]: the generic prompts: 104 prompts"
    assert lines[1].endswith(": 4 prompts; 1 empty (line 3); 1 repeated (line 4)")
    assert lines[2].startswith("evaluation.prompts: prompt file")
    assert prompt_report(prompt_lists(config(PromptSource()))) == ""
