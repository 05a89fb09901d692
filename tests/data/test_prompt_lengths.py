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
    """One token a letter, and one at the end."""
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


def test_prompts_of_more_tokens_than_the_limit_are_named_by_line(tokenizer, file):
    assert too_long(PromptFile("text", file).read(), tokenizer) == (
        f"prompt file {file!r}: 2 too long for the model's text encoder, which reads 6 tokens: line 2 (7), line 6 (9); "
        "shorten or remove them"
    )


def test_a_long_list_is_cut(tokenizer, tmp_path):
    (tmp_path / "long.txt").write_text("".join(f"abcdefgh{n}\n" for n in range(8)))
    assert "line 5 (10) and 3 more; shorten" in too_long(PromptFile.parse(str(tmp_path / "long.txt")).read(), tokenizer)


def test_only_prompts_that_are_used_count(tokenizer, file):
    assert length_problems(config(PromptSource(), PromptSource("text", file, size=1)), tokenizer) == []
    both = config(PromptSource(), PromptSource("text", file), evaluation=file, n_prompts=2)
    found = length_problems(both, tokenizer)
    assert [problem.split(": ")[0] for problem in found] == ["data.prompts[1]", "evaluation.prompts"]
    assert "line 2 (7), line 6 (9);" in found[0] and "line 2 (7); shorten" in found[1]


def test_a_negative_prompt_must_be_read_too(tokenizer):
    assert length_problems(config(negative="abcde"), tokenizer) == []
    assert length_problems(config(negative="abcdef"), tokenizer) == [
        "guidance.negative_prompt has 7 tokens, and the model's text encoder reads 6; shorten it"
    ]


def test_a_tokenizer_without_a_limit_refuses_nothing(file):
    tokenizer = train_tokenizer([], vocabulary=259)
    assert tokenizer.model_max_length == 512
    tokenizer.model_max_length = int(1e30)
    assert length_problems(config(PromptSource("text", file)), tokenizer) == []


def test_the_report_has_a_line_for_each_list(file):
    both = config(PromptSource("generic"), PromptSource("text", file), evaluation=file)
    lines = prompt_report(prompt_lists(both)).splitlines()
    assert lines[0] == "data.prompts[0]: the generic prompts: 104 prompts"
    assert lines[1].endswith(": 4 prompts; 1 empty (line 3); 1 skipped that repeat an earlier one (line 4)")
    assert lines[2].startswith("evaluation.prompts: prompt file")
    assert prompt_report(prompt_lists(config(PromptSource()))) == ""
