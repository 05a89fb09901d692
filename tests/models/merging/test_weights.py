from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qd.models.merging.weights import default_folder, interpolation, soup, weight_problems


@given(st.floats(0, 1))
def test_an_interpolation_is_an_average_and_symmetric(lam):
    forth, back = interpolation("a", "b", lam), interpolation("b", "a", 1 - lam)
    assert weight_problems(forth, extrapolate=False) == []
    assert dict(forth) == pytest.approx(dict(back))
    assert forth[1].weight == lam


@given(st.integers(2, 300))
def test_equal_shares_are_an_average(n):
    shares = soup([f"runs/{i}" for i in range(n)])
    assert weight_problems(shares, extrapolate=False) == []
    assert len({weight for _, weight in shares}) == 1


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("runs/x:0.25", "runs/x", 0.25),
        ("C:\\models\\x:1", "C:\\models\\x", 1.0),
        ("a:b:-2e-1", "a:b", -0.2),
        ("base: .5", "base", 0.5),
    ],
)
def test_the_weight_follows_the_last_colon(text, name, weight):
    assert soup([text]) == [(name, weight)]


@pytest.mark.parametrize("text", ["runs/x", "C:\\models\\x", "x:half"])
def test_text_that_is_not_a_number_belongs_to_the_name(text):
    assert soup([text, "base"]) == [(text, 0.5), ("base", 0.5)]


def test_weights_for_only_some_models_are_refused():
    with pytest.raises(ValueError, match="no weight for b, d"):
        soup(["a:0.5", "b", "c:0.25", "d"])


@pytest.mark.parametrize(
    ("models", "extrapolate", "problems"),
    [
        (["a:0.25", "b:0.25", "c:0.5"], False, []),
        (["a:0.3333333", "b:0.3333333", "c:0.3333333"], False, []),
        (["a:0.333", "b:0.333", "c:0.333"], False, ["0.333, 0.333, 0.333 add up to 0.999"]),
        (["a:1"], False, ["1 model is given"]),
        (["a:1.5", "b:-0.5"], False, ["1.5, -0.5 leave [0, 1]"]),
        (["a:1.5", "b:-0.5"], True, []),
        (["a:-1", "b:1"], True, ["add up to 0"]),
        (["a:-1", "b:1"], False, ["add up to 0", "leave [0, 1]"]),
        (["a:nan", "b:1"], True, ["nan, 1; expected finite"]),
    ],
)
def test_weights_that_do_not_form_an_average_are_reported(models, extrapolate, problems):
    reported = weight_problems(soup(models), extrapolate)
    assert len(reported) == len(problems)
    assert all(expected in text for text, expected in zip(reported, problems, strict=True))


@pytest.mark.parametrize(
    ("a", "b", "lam", "name"),
    [
        ("runs/beta0", "runs/beta15", 0.5, "beta0-beta15-lambda0.5"),
        ("runs/beta0", "base", 0.05, "beta0-base-lambda0.05"),
        ("runs/beta0/step-000500", "/beta15/", -0.5, "beta0-step-000500-beta15-lambda-0.5"),
        ("facebook/musicgen-small", "../models/x", 1.0, "facebook-musicgen-small-models-x-lambda1"),
    ],
)
def test_the_default_name_describes_the_merge(a, b, lam, name):
    assert default_folder(interpolation(a, b, lam), interpolated=True) == Path("runs") / "merged" / name


def test_a_soup_is_named_by_its_size_and_time():
    name = default_folder(soup(["a", "b", "c"]), interpolated=False).name
    assert re.fullmatch(r"soup3-\d{8}-\d{6}", name)
