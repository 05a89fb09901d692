from __future__ import annotations

import json
from pathlib import Path

import pytest

from qd.cli.main import main
from qd.evaluation.sample_bank import SampleBank
from tests.tiny_run import stand_in_quality


@pytest.fixture
def run(tiny_model, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qd.evaluation.evaluator.load_quality", stand_in_quality)
    (tmp_path / "prompts.txt").write_text("a waltz\nfast drums\ntechno\n")
    settings = [f"--model={tiny_model}", "--prompts=prompts.txt", "--samples=8", "--device=cpu", "front_samples=4"]
    settings += [f"embedder={tiny_embedder}", f"eval_embedder={tiny_embedder}", "seconds=0.32"]
    return lambda *words: main(["headroom", *settings, *words])


def test_one_table_compares_the_optimum_guidance_and_models(run, tiny_model, capsys):
    assert run("--beta", "0", "15", "--models", str(tiny_model), "front=[1, 3]", "--out=result") == 0
    folder = Path("result")
    rows = json.loads((folder / "headroom.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == ["optimum", "optimum", "guidance", "guidance", "model"]
    assert all(len(row["diversity"]) == 3 for row in rows)
    assert rows[2]["quality"] == rows[4]["quality"]  # the same model, without guidance
    assert rows[0]["kl"] == pytest.approx([0, 0, 0], abs=1e-9)
    assert sum(rows[1]["kl"]) > 0 and sum(rows[1]["effective_samples"]) < sum(rows[0]["effective_samples"])
    report = (folder / "headroom.md").read_text()
    assert report in capsys.readouterr().out and "optimum, β = 15" in report and "γ = 3" in report
    assert "Warning" in report  # each half has 4 samples
    assert (folder / "headroom.png").stat().st_size > 10_000


def test_another_beta_draws_no_samples(run, monkeypatch):
    assert run("--beta", "0", "--out=first") == 0
    monkeypatch.setattr(SampleBank, "_draw", None)
    assert run("--beta", "5", "--out=second") == 0
    assert Path("second", "headroom.md").is_file()


def test_all_bad_settings_are_listed(run, capsys):
    assert run("--beta", "-1", "--samples=7", "front_samples=2", "--seed=-1", "--models", "runs/none") == 2
    error = capsys.readouterr().err
    for text in ("beta is -1", "samples is 7", "front_samples is 2", "seed is -1", "runs/none"):
        assert text in error


def test_a_prompt_that_is_too_long_is_an_error(run, capsys):
    Path("prompts.txt").write_text("a waltz\n" + "x" * 600 + "\n")
    assert run() == 2
    assert "line 2" in capsys.readouterr().err
