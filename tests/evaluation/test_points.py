from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qd.evaluation.columns import METRICS, OPTIONAL_METRICS
from qd.evaluation.points import Point, PointsFile, comparable, content_key
from qd.metrics.bootstrap import Interval


def test_a_line_is_flat_and_in_the_published_order(point):
    row = json.loads(point.to_json())
    metrics = [name + suffix for name in METRICS for suffix in ("", "_lo", "_hi")]
    published = (
        "key run model step beta guidance_scale negative temperature lam seed protocol scorers n_prompts n_samples"
    )
    last = "seconds series fad fad_infinite fad_reference kad"
    assert list(row) == [*published.split(), *metrics, *last.split()]
    assert row["diversity"] == 3.5 and row["diversity_lo"] == 3.4 and row["negative"] is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    run=st.text(st.characters(exclude_categories=("Cs",))),
    beta=st.none() | st.floats(0, 100),
    values=st.lists(st.floats(-1e6, 1e6), min_size=21, max_size=21),
)
def test_round_trip(point, run, beta, values):
    metrics = {name: Interval(*values[3 * i : 3 * i + 3]) for i, name in enumerate(METRICS)}
    changed = replace(point, run=run, beta=beta, metrics=metrics)
    line = changed.to_json()
    assert "\n" not in line and Point.from_json(line) == changed


def with_facets(point):
    return replace(point, metrics={**point.metrics, **{name: Interval(0.5, 0.25, 0.75) for name in OPTIONAL_METRICS}})


def test_optional_metrics_are_the_last_columns(point):
    row = json.loads(with_facets(point).to_json())
    assert list(row)[-3 * len(OPTIONAL_METRICS) - 1] == "kad"
    assert list(row)[-3:] == ["loudness_spread", "loudness_spread_lo", "loudness_spread_hi"]
    assert (row["diversity_effective"], row["diversity_effective_hi"]) == (0.5, 0.75)
    assert Point.from_json(json.dumps(row)) == with_facets(point) and with_facets(point).has_facets
    assert not point.has_facets


def test_undefined_values_are_null(point):
    metrics = {**point.metrics, "vendi": Interval(math.nan, math.nan, math.nan)}
    line = replace(point, metrics=metrics).to_json()
    assert json.loads(line)["vendi"] is None
    assert math.isnan(Point.from_json(line).metrics["vendi"].lo)


def test_metrics_must_be_complete(point):
    with pytest.raises(ValueError, match="expected"):
        replace(point, metrics={"quality": Interval(0, 0, 0)})
    with pytest.raises(ValueError, match="loudnes"):
        replace(point, metrics={**point.metrics, "loudnes": Interval(0, 0, 0)})


def test_appended_points_are_read_in_order(tmp_path, point):
    file = PointsFile(tmp_path / "runs" / "a" / "points.jsonl")
    assert file.read() == []
    points = [replace(point, step=step) for step in (0, 500, 1000)]
    for one in points:
        file.append(one)
    assert file.read() == points


@pytest.mark.parametrize("cut", [1, 30, -2])
def test_an_incomplete_last_line_is_skipped_and_then_removed(tmp_path, point, cut):
    file = PointsFile(tmp_path / "points.jsonl")
    file.append(point)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + whole.rstrip()[:cut])
    with pytest.warns(UserWarning, match="skipped"):
        assert file.read() == [point]
    later = replace(point, step=1000)
    with pytest.warns(UserWarning, match="removed"):
        file.append(later)
    assert file.read() == [point, later]


def test_a_last_line_without_its_line_break_is_read(tmp_path, point, recwarn):
    file, later = PointsFile(tmp_path / "points.jsonl"), replace(point, step=1000)
    file.path.write_text(point.to_json(), encoding="utf-8")
    assert file.read() == [point]
    file.append(later)
    assert file.read() == [point, later] and file.path.read_bytes().count(b"\n") == 2
    assert not recwarn.list


def test_a_text_may_have_unicode_line_breaks(tmp_path, point):
    file = PointsFile(tmp_path / "points.jsonl")
    odd = replace(point, negative="a\u2028b\x85c\nd")
    file.append(odd)
    assert file.read() == [odd]


def test_damage_before_the_last_line_is_an_error(tmp_path, point):
    file = PointsFile(tmp_path / "points.jsonl")
    file.path.write_text(point.to_json() + '\n{"run": 1}\n' + point.to_json() + "\n")
    with pytest.raises(ValueError, match="line 2: point lacks key"):
        file.read()


def test_a_bad_byte_is_an_error_that_names_file_and_line(tmp_path, point):
    file = PointsFile(tmp_path / "points.jsonl")
    line = point.to_json().encode() + b"\n"
    file.path.write_bytes(line + line.replace(b"beta15", b"beta\xff5", 1) + line)
    with pytest.raises(ValueError, match=r"points\.jsonl, line 2: 'utf-8' codec .*remove that line"):
        file.read()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("quality", [1], r"quality is \[1\], expected a number or null"),
        ("vendi_lo", "1", 'vendi_lo is "1", expected a number or null'),
        ("temperature", None, "temperature is null, expected a number"),
        ("step", 1.5, r"step is 1\.5, expected a whole number"),
        ("seed", True, "seed is true, expected a whole number"),
        ("negative", 3, "negative is 3, expected a text or null"),
        ("run", {}, r"run is \{\}, expected a text"),
        ("fad", "near", 'fad is "near", expected a number or null'),
        ("kad", [2], r"kad is \[2\], expected a number or null"),
        ("tempo_spread_hi", "x", 'tempo_spread_hi is "x", expected a number or null'),
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_that_names_file_and_line(tmp_path, point, name, value, problem):
    file = PointsFile(tmp_path / "points.jsonl")
    wrong = json.dumps(json.loads(point.to_json()) | {name: value})
    file.path.write_text(f"{point.to_json()}\n{wrong}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"points\.jsonl, line 2: {problem}.*remove that line"):
        file.read()


def test_lines_of_earlier_versions_are_read(point):
    row = json.loads(point.to_json())
    for name in ("series", "fad", "fad_infinite", "fad_reference", "kad"):
        del row[name]
    assert Point.from_json(json.dumps(row)) == point


def test_duplicates_are_dropped_with_a_warning(tmp_path, point):
    file = PointsFile(tmp_path / "points.jsonl")
    others = [replace(point, series="soup"), replace(point, key="f" * 16), replace(point, step=1000)]
    for one in [point, others[0], replace(point, model="renamed"), *others[1:], others[0]]:
        file.append(one)
    with pytest.warns(UserWarning, match="2 points"):
        assert file.read() == [point, *others]


def test_a_later_point_with_fad_replaces_the_one_without(tmp_path, point, recwarn):
    file = PointsFile(tmp_path / "points.jsonl")
    with_fad = replace(point, fad=0.5, fad_infinite=0.25, fad_reference="builtin-512@01234567")
    for one in (point, replace(point, series="x"), with_fad):
        file.append(one)
    assert file.read() == [replace(point, series="x"), with_fad]
    assert not recwarn.list


def test_lines_of_one_measurement_complete_each_other(tmp_path, point, recwarn):
    """The distance may have been measured by an earlier version, and the facets later."""
    file = PointsFile(tmp_path / "points.jsonl")
    with_fad = replace(point, fad=0.5, fad_infinite=0.25, fad_reference="builtin-512@01234567")
    other = replace(point, series="x")
    for one in (point, with_fad, other, with_facets(point)):
        file.append(one)
    assert file.read() == [with_facets(with_fad), other]
    file.append(with_facets(other))
    assert file.read() == [with_facets(with_fad), with_facets(other)]
    assert not recwarn.list


def test_drop_after(tmp_path, point):
    file = PointsFile(tmp_path / "points.jsonl")
    assert file.drop_after(10) == 0
    points = [replace(point, step=step) for step in (0, 500, 1000, 1500)]
    for one in points:
        file.append(one)
    assert file.drop_after(1500) == 0
    assert file.drop_after(999) == 2
    assert file.read() == points[:2]


def test_a_key_depends_only_on_the_content():
    made_by = {"weights": "ab", "prompts": ["a", "b"], "temperature": 0.99}
    assert content_key(made_by) == content_key(dict(reversed(made_by.items())))
    assert content_key(made_by) != content_key({**made_by, "prompts": ["b", "a"]})
    assert len(content_key(made_by)) == 16


def test_comparable(point):
    assert comparable(point, replace(point, run="other", step=0, temperature=0.5))
    assert not comparable(point, replace(point, protocol="full"))
    assert not comparable(point, replace(point, scorers="adherence@3"))
