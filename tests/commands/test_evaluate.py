"""``qd evaluate`` on tiny models."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qd.evaluation.evaluator as evaluator_module
from qd.cli.main import main
from qd.commands.fad import fad
from qd.commands.merge import merge
from qd.config.protocols import PROTOCOLS, Protocol
from qd.evaluation.measure import evaluate_policy
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point, PointsFile
from qd.models.musicgen import MusicGen
from tests.conftest import CLIP_SECONDS
from tests.locking_process import locked_by_another
from tests.models.merging.conftest import sibling
from tests.processes import ended, launch
from tests.tiny_run import stand_in_quality

Evaluate = Callable[..., int]


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    return tiny_model, sibling(tiny_model, tmp_path / "other", 1)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[MusicGen]:
    """Lists the measurements that are really made; the scorers are fast fakes."""
    monkeypatch.setattr(evaluator_module, "load_quality", stand_in_quality)
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return evaluate_policy(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "evaluate_policy", counted)
    return calls


@pytest.fixture
def evaluate(tiny_embedder: Path, tmp_path: Path, measured: list) -> Evaluate:
    """Runs the command on a few prompts; its files are in ``tmp_path / "results"``."""
    settings = [f"embedder={tiny_embedder}", f"eval_embedder={tiny_embedder}", f"seconds={CLIP_SECONDS}"]
    settings += ["n_prompts=4", "n_samples=3", "audio_prompts=2"]

    def run(*arguments: str) -> int:
        fixed = ["--device=cpu", "--out", str(tmp_path / "results" / "points.jsonl")]
        return main(["evaluate", *fixed, *arguments, *settings])

    return run


@pytest.fixture
def points(tmp_path: Path) -> Callable[[], list[Point]]:
    return lambda: PointsFile(tmp_path / "results" / "points.jsonl").read()


def test_a_point_for_each_model_and_seed(evaluate, points, models, tmp_path, capsys):
    a, b = models
    spec = f"{a}:0.75 {b}:0.25"
    assert evaluate("--model", str(a), "--model", spec, "--seeds", "0", "1", "--guidance=3") == 0
    rows = points()
    assert [(point.model, point.lam, point.seed) for point in rows] == [
        (model, lam, seed) for model, lam in ((str(a), None), (spec, 0.25)) for seed in (0, 1)
    ]
    assert {point.guidance_scale for point in rows} == {3.0} and rows[0].negative == "Bad audio quality."
    assert rows[0].protocol == "full-4x3-0.32s" and (rows[0].n_prompts, rows[0].n_samples) == (4, 3)
    assert len({point.key for point in rows}) == 4
    for point in rows:
        saved = Measurement.load(tmp_path / "results" / "per_prompt" / f"{point.key}.npz")
        assert saved.intervals() == point.metrics and len(saved.prompts) == 4
        clips = sorted((tmp_path / "results" / "audio" / point.key).iterdir())
        names = [f"prompt-{prompt}-sample-{sample}.flac" for prompt in (1, 2) for sample in (1, 2)]
        assert [clip.name for clip in clips] == names
        assert soundfile.info(clips[0]).duration == pytest.approx(CLIP_SECONDS, rel=0.01)
    assert "0 of 4 points are done, 4 to measure" in capsys.readouterr().out


def test_a_sum_has_the_point_of_the_merged_folder(evaluate, points, models, tmp_path, measured):
    a, b = models
    merged = merge(str(a), str(b), lam=0.3, out=tmp_path / "merged")
    assert evaluate("--model", f"{a}:0.7 {b}:0.3", "--model", str(merged)) == 0
    (point,) = points()  # one key: the second model was already measured
    assert point.lam == 0.3 and len(measured) == 1


def test_existing_measurements_are_reused_after_a_rename(evaluate, points, models, tmp_path, measured, capsys):
    assert evaluate("--model", str(models[1])) == 0
    shutil.move(models[1], tmp_path / "renamed")
    assert evaluate("--model", str(tmp_path / "renamed")) == 0
    assert len(points()) == len(measured) == 1
    assert "1 of 1 points are done, 0 to measure" in capsys.readouterr().out
    assert evaluate("--model", str(tmp_path / "renamed"), "--temperature=0.5") == 0
    assert [point.temperature for point in points()] == [0.99, 0.5]


def test_an_incomplete_line_is_written_again_from_its_measurement(evaluate, points, models, tmp_path, measured):
    assert evaluate("--model", f"{models[0]} {models[1]}") == 0
    file, before = tmp_path / "results" / "points.jsonl", points()
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="incomplete"):
        assert evaluate("--model", f"{models[0]} {models[1]}") == 0
    assert points() == before and len(measured) == 2


def test_ctrl_c_says_how_to_continue(evaluate, points, models, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        if points():
            raise KeyboardInterrupt
        return evaluate_policy(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "evaluate_policy", interrupted)
    assert evaluate("--model", f"{models[0]} {models[1]}") == 130
    assert "1 of 2 points were added" in capsys.readouterr().err
    monkeypatch.setattr(evaluator_module, "evaluate_policy", evaluate_policy)
    assert evaluate("--model", f"{models[0]} {models[1]}") == 0
    assert [point.model for point in points()] == [str(model) for model in models]


def test_the_distance_equals_that_of_qd_fad(evaluate, points, models, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("qd.evaluation.fad_reference.SECONDS", CLIP_SECONDS)
    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol("tiny", "heldout", 4, 3, seconds=CLIP_SECONDS))
    settings = {"embedder": str(tiny_embedder), "protocol": "tiny", "n_reference": 12}
    file = fad(model=str(models[0]), out=tmp_path / "fad.json", **settings)
    wanted = ["--model", str(models[0]), "--fad", "--fad-embedder", str(tiny_embedder), "fad_pieces=12"]
    assert evaluate("--model", str(models[0])) == 0
    assert evaluate(*wanted) == 0  # the same point, now with the distance
    (point,) = points()
    expected = json.loads(file.read_text())
    distances = (expected["fad"], expected["fad_inf"], expected["kad"])
    assert (point.fad, point.fad_infinite, point.kad) == pytest.approx(distances, rel=1e-3)
    assert point.fad_reference.startswith("builtin-12@")
    monkeypatch.setattr("qd.evaluation.fad_reference.embed_recordings", None)  # cached: not embedded again
    assert evaluate(*wanted, "--temperature=0.5") == 0
    assert points()[1].fad != point.fad


def test_a_reference_requests_the_distance(evaluate, points, models, tiny_embedder, tmp_path, capsys):
    folder, generator = tmp_path / "references" / "mine", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", 0.1 * generator.normal(size=round(CLIP_SECONDS * 16_000)), 16_000)
    assert evaluate("--model", str(models[0]), "--reference", str(folder), "--fad-embedder", str(tiny_embedder)) == 0
    assert evaluate("--model", str(models[0]), f"fad_embedder={tiny_embedder}", "fad_pieces=10") == 0
    assert [point.fad_reference.split("-")[0] for point in points()] == ["mine", "builtin"]
    assert points()[0].fad > 0 and points()[1].fad > 0
    capsys.readouterr()
    assert evaluate("--model", str(models[0]), "--reference", str(tmp_path / "gone")) == 2
    assert "fad_reference: " in capsys.readouterr().err


def test_a_results_file_has_one_writer(evaluate, points, models, tmp_path, capsys):
    with locked_by_another(tmp_path / "results" / "points.jsonl") as other:
        assert evaluate("--model", str(models[0])) == 2
        assert f"points.jsonl is being written by process {other.pid} " in capsys.readouterr().err
        assert evaluate("--model", str(models[0]), "--dry-run") == 0
    assert not (tmp_path / "results" / "points.jsonl").exists()
    assert evaluate("--model", str(models[0])) == 0 and len(points()) == 1


def test_dry_run_measures_no_point(evaluate, points, models, tmp_path, capsys):
    assert evaluate("--model", str(models[0])) == 0
    assert evaluate("--model", f"{models[0]} {models[1]}", "--dry-run") == 0
    output = capsys.readouterr().out
    assert f"      done  {models[0]} T=0.99 seed 0" in output and f"to measure  {models[1]} T=0.99 seed 0" in output
    assert "time: " in output and "disk: " in output and len(points()) == 1


def test_all_bad_settings_are_listed(evaluate, models, tmp_path, capsys):
    arguments = [
        "--model=runs/gone",
        "--model",
        f"{models[0]}:0.5 {models[1]}:0.6",
        "--protocol=ful",
        "--eval-batch-size=0",
    ]
    assert evaluate(*arguments, "--seeds", "0", "0", "--temperature=0", "--device=tpu", "--guidance=-1") == 2
    output = capsys.readouterr().err
    wanted = (
        "'full'?",
        "eval_batch_size is 0",
        "seeds is [0, 0]",
        "temperature is 0.0",
        "device: ",
        "runs/gone",
        "add up to",
    )
    wanted += ("guidance_scale is -1.0; expected a finite number, 0 or more",)
    assert all(text in output for text in wanted) and "8 problems" in output
    assert not (tmp_path / "results").exists()
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    for out, wrong in (
        (tmp_path / "file" / "points.jsonl", "file' is a file"),
        (tmp_path / "folder.jsonl", "not a folder"),
    ):
        assert evaluate("--model", str(models[0]), "--out", str(out)) == 2
        output = capsys.readouterr().err
        assert wrong in output and "1 problem" in output
    assert main(["evaluate"]) == 2
    assert "no model is named" in capsys.readouterr().err


def test_prompts_that_are_too_long_are_an_error_before_any_point(evaluate, models, tmp_path, capsys):
    (tmp_path / "long.txt").write_text(f"a short one\n{'piano ' * 600}\nanother\na third\n")
    (tmp_path / "short.txt").write_text("a short one\n\nanother\nANOTHER\na third\na fourth\n")
    short = ["--prompts", str(tmp_path / "short.txt"), "--dry-run"]
    assert evaluate("--model", str(models[0]), *short) == 0
    output = capsys.readouterr().out
    assert "4 prompts; 1 empty (line 2); 1 repeated (line 4)" in output
    options = ["--guidance=3", "--negative-prompt", "noise " * 600, "--prompts", str(tmp_path / "long.txt")]
    assert evaluate("--model", str(models[0]), *options) == 2
    output = capsys.readouterr().err
    assert "prompts: prompt file" in output and "1 too long" in output and "line 2 (" in output
    assert "negative_prompt has " in output and "2 problems" in output
    assert not (tmp_path / "results" / "points.jsonl").exists()


def test_models_of_different_shapes_are_an_error(evaluate, models, tmp_path, capsys):
    from tests.conftest import build_tiny_musicgen

    build_tiny_musicgen(width=64).save(tmp_path / "wide")
    assert evaluate("--model", f"{models[0]}:0.5 {tmp_path / 'wide'}:0.5") == 2
    output = capsys.readouterr().err
    assert "wide is not a sibling of" in output and "hidden_size is 32" in output and "1 problem in" in output


@pytest.mark.slow
def test_two_ranks_measure_the_same_as_one(models, tiny_embedder, tmp_path):
    """Three prompts: an odd number."""
    settings = [f"embedder={tiny_embedder}", f"eval_embedder={tiny_embedder}", f"seconds={CLIP_SECONDS}"]
    settings += ["n_prompts=3", "n_samples=4", "device=cpu", "fad=true", "fad_pieces=12"]
    settings += [f"fad_embedder={tiny_embedder}"]
    results = {}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, start in {"one": [], "two": torchrun}.items():
        out = tmp_path / name / "points.jsonl"
        command = [sys.executable, *start, str(Path(__file__).parents[1] / "tiny_run.py"), "evaluate"]
        process = launch([*command, "--model", f"{models[0]} {models[1]}", "--out", str(out), *settings])
        output = ended(process)
        assert process.returncode == 0, output
        results[name] = PointsFile(out).read()
    assert [point.key for point in results["one"]] == [point.key for point in results["two"]]
    for one, two in zip(results["one"], results["two"], strict=True):
        np.testing.assert_allclose([*two.metrics.values()], [*one.metrics.values()], rtol=1e-4, atol=1e-6)
        assert two.fad == pytest.approx(one.fad, rel=1e-3)
