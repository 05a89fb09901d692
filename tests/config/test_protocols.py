from __future__ import annotations

import pytest

from qd.config.protocols import PROTOCOLS, build_protocol
from qd.data.world import world


def test_the_published_ids():
    assert {name: protocol.id for name, protocol in PROTOCOLS.items()} == {
        n: n for n in ("quick", "full", "paper", "two-samples")
    }
    assert PROTOCOLS["two-samples"].prompts() == PROTOCOLS["paper"].prompts()[:50]
    assert PROTOCOLS["paper"].n_prompts == world.QUALITY_PROMPTS
    assert build_protocol("quick", n_prompts=32, n_samples=4, seconds=4.0) == PROTOCOLS["quick"]


def test_the_id_contains_all_differences(tmp_path):
    assert build_protocol("quick", n_prompts=16, n_samples=2).id == "quick-16x2"
    assert build_protocol("quick", seconds=2.5).id == "quick-2.5s"
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one\n\n two \nthree\n", encoding="utf-8")
    second.write_text("one\ntwo\nfour\n", encoding="utf-8")
    a, b = (build_protocol("quick", n_prompts=3, prompts_file=str(file)) for file in (first, second))
    assert a.prompts() == ["one", "two", "three"]
    assert build_protocol("quick", prompts_file=str(first)) == a
    assert a.id != b.id and a.id.startswith("quick-3x4-")


def test_editing_or_removing_a_file_later_changes_nothing(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("one\ntwo\n", encoding="utf-8")
    protocol = build_protocol("quick", prompts_file=str(file))
    name, prompts = protocol.id, protocol.prompts()
    prompts.append("the caller's own")
    file.write_text("three\n", encoding="utf-8")
    assert (protocol.id, protocol.prompts()) == (name, ["one", "two"])
    file.unlink()
    assert (protocol.id, protocol.prompts()) == (name, ["one", "two"])


def test_prompts_are_distinct_and_of_the_split():
    prompts = build_protocol("quick", n_prompts=6).prompts()
    assert len(set(prompts)) == 6 and prompts == list(world.prompt_set("development", 6))


def test_bad_protocols(tmp_path):
    with pytest.raises(ValueError, match="'fast'.*expected one of quick, full, paper"):
        build_protocol("fast")
    with pytest.raises(ValueError, match="n_samples is 1"):
        build_protocol("quick", n_samples=1)
    with pytest.raises(ValueError, match="n_prompts is 1"):
        build_protocol("quick", n_prompts=1)
    short = tmp_path / "short.txt"
    short.write_text("one\n")
    with pytest.raises(ValueError, match="holds 1 prompts, 2 are needed"):
        build_protocol("quick", n_prompts=2, prompts_file=str(short)).prompts()
    with pytest.raises(ValueError, match="cannot be read"):
        build_protocol("quick", prompts_file=str(tmp_path / "none.txt")).prompts()
