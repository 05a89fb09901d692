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
from tests.held_place import written_by_another
from tests.models.merging.conftest import sibling
from tests.test_two_ranks import ended, launch
from tests.tiny_run import stand_in_quality

Evaluate = Callable[..., int]


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    return tiny_model, sibling(tiny_model, tmp_path / "other", 1)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[MusicGen]:
    """Grows with each policy that is really measured; the scorers are quick ones."""
    monkeypatch.setattr(evaluator_module, "load_quality", stand_in_quality)
    found = []

    def counted(*args, **kwargs):
        found.append(args)
        return evaluate_policy(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "evaluate_policy", counted)
    return found


@pytest.fixture
def evaluate(tiny_embedder: Path, tmp_path: Path, measured: list) -> Evaluate:
    """Runs the command on so few prompts that it is quick; what it writes is in ``tmp_path / "results"``."""
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
    found = points()
    assert [(point.model, point.lam, point.seed) for point in found] == [
        (model, lam, seed) for model, lam in ((str(a), None), (spec, 0.25)) for seed in (0, 1)
    ]
    assert {point.guidance_scale for point in found} == {3.0} and found[0].negative == "Bad audio quality."
    assert found[0].protocol == "full-4x3-0.32s" and (found[0].n_prompts, found[0].n_samples) == (4, 3)
    assert len({point.key for point in found}) == 4
    for point in found:
        kept = Measurement.load(tmp_path / "results" / "per_prompt" / f"{point.key}.npz")
        assert kept.intervals() == point.metrics and len(kept.prompts) == 4
        clips = sorted((tmp_path / "results" / "audio" / point.key).iterdir())
        kept_names = [f"prompt-{prompt}-sample-{sample}.flac" for prompt in (1, 2) for sample in (1, 2)]
        assert [clip.name for clip in clips] == kept_names
        assert soundfile.info(clips[0]).duration == pytest.approx(CLIP_SECONDS, rel=0.01)
    assert "of 4 points 0 are there, 4 to measure" in capsys.readouterr().out


def test_a_sum_is_measured_as_the_merged_folder_is(evaluate, points, models, tmp_path, measured):
    a, b = models
    merged = merge(str(a), str(b), lam=0.3, out=tmp_path / "merged")
    assert evaluate("--model", f"{a}:0.7 {b}:0.3", "--model", str(merged)) == 0
    (point,) = points()  # of one key: the second model was there already
    assert point.lam == 0.3 and len(measured) == 1


def test_what_is_there_is_skipped_whatever_it_is_called(evaluate, points, models, tmp_path, measured, capsys):
    assert evaluate("--model", str(models[1])) == 0
    shutil.move(models[1], tmp_path / "renamed")
    assert evaluate("--model", str(tmp_path / "renamed")) == 0
    assert len(points()) == len(measured) == 1
    assert "of 1 points 1 are there, 0 to measure" in capsys.readouterr().out
    assert evaluate("--model", str(tmp_path / "renamed"), "--temperature=0.5") == 0
    assert [point.temperature for point in points()] == [0.99, 0.5]


def test_a_torn_line_is_said_and_its_measurement_is_not_made_again(evaluate, points, models, tmp_path, measured):
    assert evaluate("--model", f"{models[0]} {models[1]}") == 0
    file, before = tmp_path / "results" / "points.jsonl", points()
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="torn"):
        assert evaluate("--model", f"{models[0]} {models[1]}") == 0
    assert points() == before and len(measured) == 2


def test_ctrl_c_says_how_to_go_on(evaluate, points, models, monkeypatch, capsys):
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


def test_the_distance_is_that_of_the_command_fad(evaluate, points, models, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("qd.evaluation.fad_reference.SECONDS", CLIP_SECONDS)
    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol("tiny", "heldout", 4, 3, seconds=CLIP_SECONDS))
    settings = {"embedder": str(tiny_embedder), "protocol": "tiny", "n_reference": 12}
    file = fad(model=str(models[0]), out=tmp_path / "fad.json", **settings)
    wanted = ["--model", str(models[0]), "--fad", "--fad-embedder", str(tiny_embedder), "fad_pieces=12"]
    assert evaluate("--model", str(models[0])) == 0
    assert evaluate(*wanted) == 0  # the same point, which lacked it
    (point,) = points()
    found = json.loads(file.read_text())
    assert (point.fad, point.fad_infinite) == pytest.approx((found["fad"], found["fad_inf"]), rel=1e-3)
    assert point.fad_reference.startswith("builtin-12@")
    monkeypatch.setattr("qd.evaluation.fad_reference.embed_recordings", None)  # cached: not embedded again
    assert evaluate(*wanted, "--temperature=0.5") == 0
    assert points()[1].fad != point.fad


def test_a_reference_asks_for_the_distance(evaluate, points, models, tiny_embedder, tmp_path, capsys):
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


def test_a_file_that_another_process_is_writing_gets_no_points(evaluate, points, models, tmp_path, capsys):
    with written_by_another(tmp_path / "results" / "points.jsonl") as other:
        assert evaluate("--model", str(models[0])) == 2
        assert f"points.jsonl is being written by process {other.pid} of " in capsys.readouterr().err
        assert evaluate("--model", str(models[0]), "--dry-run") == 0
    assert not (tmp_path / "results" / "points.jsonl").exists()
    assert evaluate("--model", str(models[0])) == 0 and len(points()) == 1


def test_dry_run_measures_no_point(evaluate, points, models, tmp_path, capsys):
    assert evaluate("--model", str(models[0])) == 0
    assert evaluate("--model", f"{models[0]} {models[1]}", "--dry-run") == 0
    told = capsys.readouterr().out
    assert f"     there  {models[0]} T=0.99 seed 0" in told and f"to measure  {models[1]} T=0.99 seed 0" in told
    assert "time: " in told and "disk: " in told and len(points()) == 1


def test_bad_settings_are_told_at_once(evaluate, models, tmp_path, capsys):
    arguments = [
        "--model=runs/gone",
        "--model",
        f"{models[0]}:0.5 {models[1]}:0.6",
        "--protocol=ful",
        "--eval-batch-size=0",
    ]
    assert evaluate(*arguments, "--seeds", "0", "0", "--temperature=0", "--device=tpu", "--guidance=-1") == 2
    told = capsys.readouterr().err
    wanted = (
        "full?",
        "eval_batch_size is 0",
        "seeds is [0, 0]",
        "temperature is 0.0",
        "device: ",
        "runs/gone",
        "add up to",
    )
    wanted += ("guidance_scale is -1.0; expected a finite number, 0 or more",)
    assert all(text in told for text in wanted) and "8 problems" in told
    assert not (tmp_path / "results").exists()
    (tmp_path / "taken").touch()
    (tmp_path / "folder.jsonl").mkdir()
    for out, wrong in (
        (tmp_path / "taken" / "points.jsonl", "taken' is a file"),
        (tmp_path / "folder.jsonl", "no folder"),
    ):
        assert evaluate("--model", str(models[0]), "--out", str(out)) == 2
        told = capsys.readouterr().err
        assert wrong in told and "1 problem" in told
    assert main(["evaluate"]) == 2
    assert "no model is named" in capsys.readouterr().err


def test_prompts_that_the_text_encoder_cannot_read_are_told_before_any_point(evaluate, models, tmp_path, capsys):
    (tmp_path / "long.txt").write_text(f"a short one\n{'piano ' * 600}\nanother\na third\n")
    (tmp_path / "short.txt").write_text("a short one\n\nanother\nANOTHER\na third\na fourth\n")
    short = ["--prompts", str(tmp_path / "short.txt"), "--dry-run"]
    assert evaluate("--model", str(models[0]), *short) == 0
    told = capsys.readouterr().out
    assert "4 prompts; 1 empty (line 2); 1 skipped that repeat an earlier one (line 4)" in told
    asked = ["--guidance=3", "--negative-prompt", "noise " * 600, "--prompts", str(tmp_path / "long.txt")]
    assert evaluate("--model", str(models[0]), *asked) == 2
    told = capsys.readouterr().err
    assert "prompts: prompt file" in told and "1 too long for the model's text encoder" in told and "line 2 (" in told
    assert "negative_prompt has " in told and "2 problems" in told
    assert not (tmp_path / "results" / "points.jsonl").exists()


def test_models_of_different_shapes_are_refused(evaluate, models, tmp_path, capsys):
    from tests.conftest import build_tiny_musicgen

    build_tiny_musicgen(width=64).save(tmp_path / "wide")
    assert evaluate("--model", f"{models[0]}:0.5 {tmp_path / 'wide'}:0.5") == 2
    told = capsys.readouterr().err
    assert "wide is no sibling of" in told and "hidden_size is 32" in told and "1 problem in" in told


@pytest.mark.slow
def test_two_ranks_measure_what_one_does(models, tiny_embedder, tmp_path):
    """Three prompts: an odd number."""
    settings = [f"embedder={tiny_embedder}", f"eval_embedder={tiny_embedder}", f"seconds={CLIP_SECONDS}"]
    settings += ["n_prompts=3", "n_samples=4", "device=cpu", "fad=true", "fad_pieces=12"]
    settings += [f"fad_embedder={tiny_embedder}"]
    found = {}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, start in {"one": [], "two": torchrun}.items():
        out = tmp_path / name / "points.jsonl"
        command = [sys.executable, *start, str(Path(__file__).parents[1] / "tiny_run.py"), "evaluate"]
        process = launch([*command, "--model", f"{models[0]} {models[1]}", "--out", str(out), *settings])
        output = ended(process)
        assert process.returncode == 0, output
        found[name] = PointsFile(out).read()
    assert [point.key for point in found["one"]] == [point.key for point in found["two"]]
    for one, two in zip(found["one"], found["two"], strict=True):
        np.testing.assert_allclose([*two.metrics.values()], [*one.metrics.values()], rtol=1e-4, atol=1e-6)
        assert two.fad == pytest.approx(one.fad, rel=1e-3)
