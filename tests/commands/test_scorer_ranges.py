from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from qd.commands import scorer_ranges as module
from qd.commands.scorer_ranges import RecordingScorer, ranges_report, scorer_ranges
from qd.models.musicgen import MusicGen
from qd.scorers.loading import load_adherence


def rows_of(report: str) -> dict[tuple[str, str], list[float]]:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("| ")]
    return {(row[0], row[1]): [float(cell) for cell in row[2:]] for row in cells[1:]}


def omega_of(report: str) -> float:
    return float(re.search(r"evaluation\.adherence_weight=([\d.]+)`", report)[1])


def test_omega_gives_both_terms_the_same_spread():
    rng = np.random.default_rng(0)
    scores = {name: (0.3 + 0.1 * rng.standard_normal(500), 6 + 0.8 * rng.standard_normal(500)) for name in ("a", "b")}
    report = ranges_report("title", scores)
    omega = omega_of(report)
    assert omega == pytest.approx(8, rel=0.1)
    adherence, preference = (np.concatenate([scores["a"][i], scores["b"][i]]) for i in (0, 1))
    assert (omega * adherence).std() == pytest.approx(preference.std(), rel=2e-3)
    rows = rows_of(report)
    assert list(rows) == [(score, samples) for score in ("adherence", "preference") for samples in ("a", "b", "both")]
    expected = [1000, preference.mean(), preference.std(), *np.quantile(preference, [0.05, 0.95])]
    np.testing.assert_allclose(rows["preference", "both"], expected, atol=6e-4)
    assert f"adherence varies {5 / omega:.2f} times" in report


def test_scores_that_do_not_vary_have_no_omega():
    with pytest.raises(ValueError, match="the same score"):
        ranges_report("title", {"a": ([0.5, 0.5], [1.0, 2.0])})


def test_a_recording_scorer_returns_the_scores(tiny_clap):
    scorer = load_adherence(f"clap:{tiny_clap}")
    recorded = RecordingScorer(scorer)
    audio = 0.1 * torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    scores = [recorded(audio[:2], 16_000, ["a", "b"]), recorded(audio[2:], 16_000, ["c"])]
    assert recorded.scores == torch.cat(scores).tolist()
    torch.testing.assert_close(torch.cat(scores), scorer(audio, 16_000, ["a", "b", "c"]))
    assert (recorded.name, recorded.version, recorded.sample_rate) == (scorer.name, scorer.version, scorer.sample_rate)


def test_clips_with_and_without_guidance_are_scored(tiny_model, tiny_clap, tmp_path, monkeypatch, capsys):
    calls = []
    measure = module.Evaluator.measure
    monkeypatch.setattr(
        module.Evaluator, "measure", lambda self, lm, sampling: calls.append(sampling) or measure(self, lm, sampling)
    )
    (tmp_path / "prompts.txt").write_text("a waltz\n\nfast drums\ntechno\n")
    options = {"adherence": f"clap:{tiny_clap}", "prompts": str(tmp_path / "prompts.txt"), "n": 2, "seconds": 0.32}
    report = scorer_ranges(str(tiny_model), **options, guidance=4.0, negative_prompt="", device="cpu", seed=3)
    assert "2 prompts; 1 empty (line 2)" in capsys.readouterr().err
    assert [(s.guidance_scale, s.negative, s.seconds, s.seed) for s in calls] == [
        (1, None, 0.32, 3),
        (4, None, 0.32, 3),
    ]
    rows = rows_of(report)
    assert [rows["adherence", samples][0] for samples in ("γ = 1", "γ = 4", "both")] == [8, 8, 16]
    assert rows["preference", "γ = 1"] != rows["preference", "γ = 4"]
    assert report.startswith("### clap@") and f"on {tiny_model}: protocol quick-2x4-0.32s-" in report
    assert omega_of(report) == pytest.approx(rows["preference", "both"][2] / rows["adherence", "both"][2], rel=0.05)


def test_bad_input_is_an_error_before_anything_is_sampled(tiny_model, monkeypatch, tmp_path):
    (tmp_path / "long.txt").write_text(f"a waltz\n{'piano ' * 600}\n")
    monkeypatch.setattr(MusicGen, "condition", None)
    for options, problem in (
        ({"n": 1}, "n_prompts is 1"),
        ({"guidance": -1.0, "temperature": 0.0}, r"(?s)temperature must be .* guidance_scale must be .* 0 or more"),
        ({"adherence": "clip"}, "adherence scorer 'clip': expected builtin, clap:"),
        ({"preference": "mos"}, "preference scorer 'mos': expected builtin, audiobox:"),
        ({"prompts": str(tmp_path / "long.txt")}, r"1 too long .*line 2 \("),
        ({"prompts": "/no/such.txt"}, "'/no/such.txt' cannot be read"),
    ):
        with pytest.raises(ValueError, match=problem):
            scorer_ranges(str(tiny_model), device="cpu", **options)
