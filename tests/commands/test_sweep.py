"""``qd sweep`` on tiny models."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import qd.evaluation.evaluator as evaluator_module
from qd.cli.main import main
from qd.commands.merge import merge
from qd.config.loading import ConfigError, config_folder, load_config
from qd.config.series import InterpolateConfig
from qd.config.sweep import SweepConfig
from qd.evaluation.measure import evaluate_policy
from qd.evaluation.points import Point, PointsFile, comparable
from qd.evaluation.tasks import sweep_tasks
from tests.conftest import CLIP_SECONDS
from tests.models.merging.conftest import sibling
from tests.processes import launch
from tests.tiny_run import stand_in_quality

SERIES = [
    {"name": "betas", "models": {"names": ["base", "beta0", "beta15"]}, "seeds": [0, 1]},
    {"name": "lerp", "interpolate": {"a": "beta0", "b": "beta15", "step": 0.25}},
    {"name": "guidance", "guidance": {"model": "base", "scales": [1, 3]}},
    {"name": "unconditional", "guidance": {"model": "base", "scales": [1, 3], "negative_prompt": None}},
    {"name": "temperature", "temperature": {"model": "beta0", "values": [0.5, 0.99]}},
    {"name": "soup", "soup": {"models": ["base", "beta0", "beta15"]}},
]
MEASURED = 6 + 3 + 1 + 1 + 1 + 1
"""Number of different points."""


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sweep")
    others = {name: sibling(tiny_model, folder / name, seed) for seed, name in enumerate(("beta0", "beta15"), start=1)}
    (others["beta15"] / "recipe.yaml").write_text(
        yaml.safe_dump({"kind": "distillation", "run": "b15", "step": 20, "config": {"beta": 15.0}})
    )
    return {"base": str(tiny_model), **{name: str(path) for name, path in others.items()}}


@pytest.fixture
def config(models: dict[str, str], tiny_embedder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a sweep's YAML file."""

    def write(series: list[dict] = SERIES, **changes) -> Path:
        settings = {"models": models, "series": series, "embedder": str(tiny_embedder), "device": "cpu"}
        settings |= {"eval_embedder": str(tiny_embedder), "seconds": CLIP_SECONDS, "n_prompts": 4, "n_samples": 3}
        settings |= {"audio_prompts": 1, "out": str(tmp_path / "results" / "points.jsonl")}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(settings | changes), encoding="utf-8")
        return path

    return write


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list:
    """Lists the language models that are really measured; the scorers are fast fakes."""
    monkeypatch.setattr(evaluator_module, "load_quality", stand_in_quality)
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs["lm"])
        return evaluate_policy(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "evaluate_policy", counted)
    return calls


def read(tmp_path: Path) -> list[Point]:
    return PointsFile(tmp_path / "results" / "points.jsonl").read()


def test_every_point_of_every_series_and_each_measured_once(config, models, measured, tmp_path):
    assert main(["sweep", "--config", str(config())]) == 0
    points = read(tmp_path)
    assert Counter(point.series for point in points) == {
        "betas": 6, "lerp": 5, "guidance": 2, "unconditional": 2, "temperature": 2, "soup": 1
    }  # fmt: skip
    assert len(measured) == len({point.key for point in points}) == MEASURED
    assert len({id(lm) for lm in measured}) == 1  # one allocated model
    by_series = {name: [p for p in points if p.series == name] for name in Counter(p.series for p in points)}
    assert [point.lam for point in by_series["lerp"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert by_series["lerp"][0].key == by_series["betas"][1].key == by_series["temperature"][1].key
    assert by_series["lerp"][0].metrics == by_series["betas"][1].metrics
    assert by_series["lerp"][1].model == f"{models['beta0']}:0.75 {models['beta15']}:0.25"
    assert [(p.guidance_scale, p.negative) for p in by_series["unconditional"]] == [(1.0, None), (3.0, None)]
    assert [p.negative for p in by_series["guidance"]] == [None, "Bad audio quality."]
    assert [(p.run, p.step, p.beta) for p in by_series["betas"][:3]][2] == ("b15", 20, 15.0)
    assert by_series["soup"][0].lam is None and len(by_series["soup"][0].model.split()) == 3
    assert all(comparable(point, points[0]) for point in points)


def test_a_missing_config_is_the_only_problem(capsys):
    assert main(["sweep", "--config", "nope"]) == 2
    (title, problem) = capsys.readouterr().err.splitlines()
    assert "1 problem in the configuration" in title
    assert "nope" in problem and "default, larger-beta" in problem


def test_no_series_is_an_error(config, capsys):
    assert main(["sweep", "--config", str(config()), "only=[]"]) == 2
    assert "only is empty" in capsys.readouterr().err


def test_a_point_of_an_interpolation_is_that_of_the_merged_folder(config, models, measured, tmp_path):
    a, b = models["beta0"], models["beta15"]
    merge(a, b, lam=0.25, out=tmp_path / "merged")
    line = {"name": "lerp", "interpolate": {"a": "beta0", "b": "beta15", "start": 0.25, "stop": 0.25}}
    folder = {"name": "folder", "models": {"names": [str(tmp_path / "merged")]}}
    assert main(["sweep", "--config", str(config([line, folder]))]) == 0
    in_place, loaded = read(tmp_path)
    assert in_place.key == loaded.key and len(measured) == 1


def test_a_killed_sweep_continues_without_repeating_or_losing_a_point(config, measured, tmp_path, capsys):
    arguments = ["sweep", "--config", str(config())]
    file = tmp_path / "results" / "points.jsonl"
    process = launch([sys.executable, str(Path(__file__).parents[1] / "tiny_run.py"), *arguments])
    next(line for line in process.stdout if line.startswith("4/18 "))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    saved = file.read_bytes()
    done = saved.count(b"\n")
    assert 4 <= done < 18
    file.write_bytes(saved + b'{"key": "inc')  # an incomplete last line
    with pytest.warns(UserWarning, match="incomplete last line was removed"):
        assert main(arguments) == 0
    assert f"{done} of 18 points are done" in capsys.readouterr().out
    assert file.read_bytes().startswith(saved)
    points = read(tmp_path)
    assert len(points) == 18 and len({(point.key, point.series) for point in points}) == 18
    assert len(measured) < MEASURED
    assert main(arguments) == 0 and read(tmp_path) == points


def test_dry_run_lists_the_points_and_writes_none(config, measured, tmp_path, capsys):
    assert main(["sweep", "--config", str(config()), "--only", "lerp", "guidance"]) == 0
    before = read(tmp_path)
    capsys.readouterr()
    assert main(["sweep", "--config", str(config()), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert len(before) == 7 and read(tmp_path) == before
    assert output.count("      done  ") == 7 and "7 of 18 points are done" in output
    assert "time: " in output and "disk: " in output


def test_a_distance_for_one_series_only(config, measured, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("qd.evaluation.fad_reference.SECONDS", CLIP_SECONDS)
    plain = {"name": "plain", "temperature": {"model": "base", "values": [0.5, 0.99]}}
    with_fad = {"name": "fad", "models": {"names": ["base"]}, "fad": True}
    path = config([plain, with_fad], fad_embedder=str(tiny_embedder), fad_pieces=12)
    assert main(["sweep", "--config", str(path)]) == 0
    points = {(point.series, point.temperature): point for point in read(tmp_path)}
    assert points["plain", 0.5].fad is None and points["fad", 0.99].fad > 0
    assert len(measured) == 2  # the shared point was measured once, for both


def test_a_line_without_the_distance_that_another_series_needs_is_written_again(
    config, measured, tiny_embedder, tmp_path, monkeypatch
):
    monkeypatch.setattr("qd.evaluation.fad_reference.SECONDS", CLIP_SECONDS)
    plain = {"name": "plain", "models": {"names": ["base"]}}
    with_fad = plain | {"name": "fad", "fad": True}
    path = config([plain | {"fad": False}, with_fad], fad_embedder=str(tiny_embedder), fad_pieces=12)
    assert main(["sweep", "--config", str(path), "--only", "plain"]) == 0
    assert [point.fad for point in read(tmp_path)] == [None]
    for _ in range(2):  # the second time, nothing is left
        assert main(["sweep", "--config", str(path)]) == 0
        points = read(tmp_path)
        assert [(point.series, point.fad is None) for point in points] == [("plain", False), ("fad", False)]
        assert points[0].fad == points[1].fad and len(measured) == 2


@pytest.mark.parametrize(
    ("series_fad", "settings", "expected"),
    [
        ((None, None), {}, (False, False)),
        ((None, False), {"fad_reference": "builtin"}, (True, False)),  # it applies to series without a setting
        ((None, True), {"fad_reference": "builtin"}, (False, True)),  # it belongs to the series with fad: true
        ((None, True), {"fad_embedder": "builtin", "fad": True}, (True, True)),
        ((None, False), {"fad_pieces": 12}, (True, False)),
    ],
)
def test_a_reference_requests_the_distance_unless_a_series_does(config, series_fad, settings, expected):
    series = [{"name": f"s{i}", "models": {"names": ["base"]}, "fad": fad} for i, fad in enumerate(series_fad)]
    tasks = sweep_tasks(load_config(SweepConfig, "sweep", str(config(series, **settings)), []))
    assert tuple(task.fad for task in tasks) == expected


def test_a_missing_model_is_listed_with_the_series_that_need_it(config, models, capsys):
    names = models | {"beta15": "runs/beta15"}
    assert main(["sweep", "--config", str(config(models=names))]) == 2
    output = capsys.readouterr().err
    assert "models.beta15: model 'runs/beta15': no such folder" in output and "needed by betas, lerp, soup" in output


def test_a_missing_model_does_not_stop_other_series(config, models, measured, tmp_path):
    names = models | {"beta15": "runs/beta15"}
    assert main(["sweep", "--config", str(config(models=names)), "--only", "guidance"]) == 0
    assert len(read(tmp_path)) == 2


def test_all_bad_series_are_listed(config):
    series = [
        {"interpolate": {"a": "beta0", "b": "beta0", "step": 0}},
        {"name": "two", "soup": {"models": ["base"]}, "models": {"names": []}},
        {"name": "none", "seeds": [1, 1]},
        {"name": "none", "temperature": {"model": "base", "values": [0.0]}},
        {"name": "scales", "guidance": {"model": "base", "scales": []}},
        {"name": "weights", "soup": {"models": ["base", "beta0"], "weights": [1.0]}},
        {"name": "below", "guidance": {"model": "base", "scales": [0, -1]}},
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(SweepConfig, "sweep", str(config(series)), ["only=[three]", "protocol=ful", "seconds=0"])
    expected = (
        "series[0].name is empty", "series[0].interpolate.step is 0", "a and b are both 'beta0'",
        "series[1] has soup and models", "series[1].soup.models is ['base']", "series[1].models.names is empty",
        "series[2] has no kind", "series[2].seeds is [1, 1]", "series[3].temperature.values is 0.0",
        "series[4].guidance.scales is empty", "2 models and 1 weights", "series 'none' occurs 2 times",
        "there is no series 'three'", "'full'?", "seconds is 0", "series[6].guidance.scales is -1",
    )  # fmt: skip
    assert [text for text in expected if not any(text in problem for problem in caught.value.problems)] == []
    assert len(caught.value.problems) == len(expected)


def test_extrapolation_needs_a_setting(config):
    line = {"name": "far", "interpolate": {"a": "beta0", "b": "beta15", "stop": 1.2, "step": 0.2}}
    with pytest.raises(ConfigError, match="series far: .*extrapolates"):
        load_config(SweepConfig, "sweep", str(config([line])))
    line["interpolate"]["extrapolate"] = True
    assert len(sweep_tasks(load_config(SweepConfig, "sweep", str(config([line]))))) == 7


def test_lambdas_have_no_rounding_errors():
    typed = [float(f"{i * 0.05:.2f}") for i in range(21)]
    assert InterpolateConfig("a", "b").lambdas == typed
    assert InterpolateConfig("a", "b", step=0.3).lambdas == [0.0, 0.3, 0.6, 0.9]


@pytest.mark.parametrize(("name", "points"), [("default", 93), ("quick", 23), ("shipped", 77)])
def test_shipped_sweeps(name, points, models):
    """With fakes for the models that they name."""
    names = ["base", "beta0", "beta5", "beta10", "beta15"]
    stand_ins = [f"models.{short}={models[short if short in models else 'beta0']}" for short in names]
    tasks = sweep_tasks(load_config(SweepConfig, "sweep", name, stand_ins))
    assert len(tasks) == points
    assert {path.stem for path in (config_folder() / "sweep").glob("*.yaml")} == {
        "averaged", "default", "larger-beta", "quick", "reproduction", "reproduction-quick", "shipped",
    }  # fmt: skip
