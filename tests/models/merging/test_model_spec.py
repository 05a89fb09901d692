from __future__ import annotations

import pytest

from qd.models.merging.model_spec import ModelSpec, model_texts


def test_a_name_is_a_single_model():
    spec = ModelSpec.parse("runs/x")
    assert spec == ModelSpec.of("runs/x") and not spec.merged and spec.text == "runs/x" and not spec.problems()


def test_two_weights_are_an_interpolation_and_more_are_a_soup():
    line, soup = ModelSpec.parse("a:0.25 b:0.75"), ModelSpec.parse("a:0.5 b:0.25 c:0.25")
    assert (line.lam, soup.lam) == (0.75, None)
    assert line == ModelSpec.between("a", "b", 0.75)
    assert all(ModelSpec.parse(spec.text) == spec for spec in (line, soup))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:0.5 b:0.6", "add up to 1.1"), ("a:1.5 b:-0.5", "extrapolates"), ("a:0.5", "1 model is given")],
)
def test_weights_that_do_not_form_an_average_are_refused(text, expected):
    assert any(expected in problem for problem in ModelSpec.parse(text).problems())


def test_extrapolation_can_be_allowed():
    assert not ModelSpec.between("a", "b", 1.2).problems(extrapolate=True)


def test_weights_for_only_some_models_are_refused():
    with pytest.raises(ValueError, match="no weight for b"):
        ModelSpec.parse("a:0.5 b")


def test_a_text_names_models_or_a_sum(tmp_path):
    (tmp_path / "my model").mkdir()
    folder = str(tmp_path / "my model")
    assert model_texts([folder, "base x", "a:0.5 b:0.5"]) == [folder, "base", "x", "a:0.5 b:0.5"]
    assert ModelSpec.parse(folder).text == folder
