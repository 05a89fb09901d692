from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from qd.schema.checker import Settings
from qd.schema.setting import Setting, setting, setting_of


@dataclass
class Inner(Settings):
    share: float = setting(0.5, "Share.", ge=0, lt=1)
    kind: str = setting("all", "Kind.", choices=("all", "closest"), reason="others are slow")

    def rules(self, prefix: str) -> Iterator[str]:
        if self.share == 0.25:
            yield f"{prefix}share is a quarter"


@dataclass
class Outer(Settings):
    count: int | None = setting(None, "Count.", unit="steps", gt=0, le=9)
    names: list[str] = setting([], "Names.", choices=("a", "b"))
    values: tuple[float, ...] = setting((1.0,), "Values.", nonempty=True)
    inner: Inner = field(default_factory=Inner)
    parts: list[Inner] = setting(lambda: [Inner()], "Parts.")
    optional: Inner | None = setting(None, "Optional part.")

    def rules(self, prefix: str) -> Iterator[str]:
        if self.count == 9 and self.inner.share == 0.25:
            yield f"{prefix}count is 9 with {prefix}inner.share=0.25"


@dataclass
class Changed(Inner):
    share: float = 0.75


def test_defaults_have_no_problems_and_are_not_shared():
    first, second = Outer(), Outer()
    first.names.append("a")
    assert first.problems() == second.problems() == [] and second.names == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Outer(count=0), "x.count is 0; expected an integer, above 0 and at most 9"),
        (Outer(count=10), "x.count is 10; expected an integer"),
        (Outer(values=()), "x.values is empty"),
        (Outer(values=(1.0, math.nan)), "x.values is nan; expected a finite number"),
        (Outer(names=["a", "c"]), "x.names is 'c'; expected one of a, b"),
        (Outer(inner=Inner(share=1.0)), "x.inner.share is 1.0; expected a finite number, 0 or more and below 1"),
        (Outer(inner=Inner(share=math.inf)), "x.inner.share is inf"),
        (Outer(parts=[Inner(), Inner(share=-1.0)]), "x.parts[1].share is -1.0"),
        (Outer(optional=Inner(share=0.25)), "x.optional.share is a quarter"),
        (
            Outer(inner=Inner(kind="close")),
            "x.inner.kind is 'close'; expected one of all, closest; did you mean 'closest'? (others are slow)",
        ),
    ],
)
def test_a_bad_value_is_one_sentence_with_its_dotted_path(config, expected):
    (problem,) = config.problems("x.")
    assert problem.startswith(expected)


def test_rules_of_inner_groups_come_before_those_of_outer_groups():
    config = Outer(count=9, inner=Inner(share=0.25))
    assert config.problems() == ["inner.share is a quarter", "count is 9 with inner.share=0.25"]


def test_a_subclass_that_restates_a_default_keeps_the_range():
    assert Changed().share == 0.75 and setting_of(Changed, "share") is setting_of(Inner, "share")
    (problem,) = Changed(share=2.0).problems()
    assert problem.startswith("share is 2.0")
    assert setting_of(Outer, "inner") is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"ge": 0, "lt": 1}, "≥ 0, < 1"),
        ({"gt": 0, "unit": "s"}, "> 0 s"),
        ({"ge": 0, "le": 0}, "0"),
        ({"unit": "dB"}, "dB"),
        ({"choices": ("a", "b")}, "one of a, b"),
        ({}, ""),
    ],
)
def test_ranges_in_symbols(limits, expected):
    assert Setting("Help.", **limits).range == expected
