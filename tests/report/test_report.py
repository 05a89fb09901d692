"""The whole report, drawn from a results file with known values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qd.commands.report import write_report
from qd.report.data import ReportData
from qd.report.figures import FIGURES
from qd.report.headline import headline
from qd.report.tables import TABLES
from tests.report.conftest import Synthetic


def test_figures_and_tables_of_a_whole_results_file(whole: Path, tmp_path: Path) -> None:
    left_out = write_report(whole, tmp_path / "report")
    later = {name: left_out.pop(name) for name in ("effective-diversity", "facets", "good-clips", "facet-values")}
    assert all("facets=true" in why for why in later.values())
    assert set(left_out) == {"figure-1", "figure-2"} and all("RUNS" in why for why in left_out.values())
    drawn = [name for name in FIGURES if name not in left_out | later]
    for name in drawn:
        assert np.asarray(Image.open(tmp_path / "report" / f"{name}.png").convert("L")).std() > 5  # not blank
        assert "<svg" in (tmp_path / "report" / f"{name}.svg").read_text()[:1000]
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside
    assert all(f'id="{name}"' in page for name in (*drawn, *(set(TABLES) - set(later))))
    assert "12 prompts × 4 samples, sampling seed 0 (betas: 0, 1)" in page
    assert page.count("<audio") == 4  # base at seed 0: two clips of two prompts; the seeds share a row
    text = (tmp_path / "report" / "report.md").read_text()
    assert all(f"({name}.png)" in text for name in drawn)


def test_the_tables_have_the_known_values(whole: Path) -> None:
    data = ReportData(whole)
    diverse, *_ = TABLES["table-1"].make(data).rows
    assert diverse[0] == "base" and diverse[1].startswith("2.20 [") and diverse[2].startswith("0.60 [")
    adherence = {row[0]: row[1] for row in TABLES["table-4"].make(data).rows}
    offsets = np.linspace(-0.1, 0.1, 12)
    assert adherence["β = 0"] == f"0.145 ± {offsets.std(ddof=1):.3f}"  # seeds of 1.4 / 10 and 1.5 / 10
    fad = {row[0]: row[1:] for row in TABLES["table-5"].make(data).rows}
    finetuned = {f"β = {beta}": ["0.050", "0.025", "0.500"] for beta in (0, 5, 15)}
    assert fad == {"base": ["0.090", "0.045", "0.900"], **finetuned}


def test_distances_to_different_references_have_separate_columns(synthetic: Synthetic) -> None:
    for seed in (0, 1):
        synthetic.add("betas", "base", 0.0, 0.6, fad=0.1 + 0.2 * seed, seed=seed)
    synthetic.add("betas", "base", 0.0, 0.6, fad=8.0, reference="mine", seed=0)
    synthetic.add("betas", "runs/beta0", 1.0, 0.3, fad=6.0, reference="mine", beta=0.0)
    synthetic.add("betas", "runs/beta15", 1.0, 0.4, fad=0.3, beta=15.0)
    data = ReportData(synthetic.results.points.path)
    table = TABLES["table-5"].make(data)
    assert table.header == ["Model", "FAD to mine", "FAD∞", "KAD", "FAD to pieces", "FAD∞", "KAD"]
    assert table.rows == [
        ["base", "8.000", "4.000", "80.000", "0.200", "0.100", "2.000"],
        ["β = 0", "6.000", "3.000", "60.000", "—", "—", "—"],
        ["β = 15", "—", "—", "—", "0.300", "0.150", "3.000"],
    ]


def test_a_point_of_two_references_counts_once(synthetic: Synthetic) -> None:
    synthetic.add("betas", "runs/beta0", 1.0, 0.3, fad=0.1, beta=0.0, seed=0)
    synthetic.add("betas", "runs/beta0", 1.0, 0.3, fad=8.0, beta=0.0, seed=0, reference="mine")
    synthetic.add("betas", "runs/beta5", 1.0, 0.3, beta=5.0)
    data = ReportData(synthetic.results.points.path)
    assert "seeds" not in TABLES["table-1"].make(data).markdown()
    synthetic.add("betas", "runs/beta0", 1.3, 0.3, beta=0.0, seed=1)
    again = headline(ReportData(synthetic.results.points.path))["β = 0"]
    assert again.seeds == {0, 1} and again.metrics["quality"].mean == pytest.approx(1.15)


def test_seeds_are_one_setting_with_a_spread(whole: Path) -> None:
    quality = headline(ReportData(whole))["β = 5"]
    assert len(quality.points) == 2
    assert quality.spread["quality"] == pytest.approx(0.1)
    assert quality.metrics["quality"].mean == pytest.approx(1.4 - 0.1 + 0.05)


def test_guidance_and_the_middle_use_all_seeds_of_their_own_series(whole: Path, synthetic) -> None:
    single = headline(ReportData(whole))
    assert single["base, γ = 3"].seeds == {0} and single["LERP(0, 15), λ = 0.5"].seeds == {0}
    for seed in (0, 1):
        synthetic.add("teacher", "base", 0.6 + seed, 0.4, guidance_scale=3.0, negative="Bad.", seed=seed)
        synthetic.add("middle", "runs/beta0:0.5 runs/beta15:0.5", 1.0 + seed, 0.4, lam=0.5, seed=seed)
    several = headline(ReportData(whole))
    assert several.keys() == single.keys()
    assert several["base, γ = 3"].metrics["quality"].mean == pytest.approx(1.1)
    assert several["LERP(0, 15), λ = 0.5"].seeds == {0, 1}


def test_two_runs_of_one_beta_are_two_rows(whole: Path, synthetic) -> None:
    synthetic.add("betas", "runs/beta15-seed1", 1.0, 0.4, beta=15.0)
    assert {"β = 15", "β = 15 (seed1)"} < set(headline(ReportData(whole)))


def test_the_curved_slider_beats_guidance_and_temperature(whole: Path) -> None:
    rows = {row[0]: row for row in TABLES["fronts"].make(ReportData(whole)).rows}
    assert set(rows) == {"CFG γ on base, negative prompt", "CFG γ on base, unconditional", "temperature on base",
                         "trained models"}  # fmt: skip
    temperature = rows["temperature on base"]
    assert float(temperature[4]) > 0.95 and float(temperature[3].split()[0]) > 0


def test_tensorboard_has_the_figures_and_the_sweeps(whole: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second report replaces the first
        write_report(whole, tmp_path / "report", only=["figure-4"])
    events = EventAccumulator(str(tmp_path / "report"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["report/figure-4"]
    curve = events.Scalars("sweep_slider/quality")
    assert [(event.step, round(event.value, 3)) for event in curve][:2] == [(0, 1.4), (25, 1.381)]
    assert [event.step for event in events.Scalars("sweep_guidance-base/diversity")] == [100, 300, 700]
    assert [event.step for event in events.Scalars("sweep_betas/quality")] == [0, 500, 1500]
    assert not any(tag.startswith("sweep_samples") for tag in events.Tags()["scalars"])  # two runs of one β


def test_the_error_for_evaluations_without_series_says_what_to_do(synthetic, trained, tmp_path: Path) -> None:
    for model in ("base", "beta0"):
        synthetic.add("", model, 1.0, 0.3)
    file = synthetic.results.points.path
    with pytest.raises(ValueError, match="2 single points.*no series.*make sweep.*RUNS") as caught:
        write_report(file, tmp_path / "report")
    assert "figure-" not in str(caught.value) and not (tmp_path / "report").exists()
    assert "figure-2" not in write_report(file, tmp_path / "report", runs=[trained("beta0", 0.0)])


def test_only_outdated_pictures_are_removed(whole: Path, synthetic, tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_report(whole, out)
    first = {path.name: path.read_bytes() for path in out.glob("figure-*")}
    assert len(first) == 2 * 7
    own = {"figure-1.png": first["figure-3.png"].replace(b"qd report of", b"my figure of"), "mine.svg": b"<svg/>"}
    own["figure-3-full.png"] = first["figure-3.png"]  # a copy under another name
    for name, content in own.items():
        (out / name).write_bytes(content)
    write_report(whole, out, only=["figure-3", "figure-1"])  # of the same points: the other pictures remain valid
    files = {path.name: path.read_bytes() for path in out.glob("*.[ps][nv]g")}
    assert set(files) == {*first, *own} and files["figure-4.png"] == first["figure-4.png"]
    for scale in (1.0, 3.0):
        synthetic.add("guidance-base", "base", scale, 0.5, guidance_scale=scale, protocol="quick")
    left_out = write_report(whole, out, protocol="quick", only=["figure-6", "figure-4"])
    assert list(left_out) == ["figure-4"]
    files = {path.name: path.read_bytes() for path in out.glob("*.[ps][nv]g")}
    assert set(files) == {"figure-6.png", "figure-6.svg", *own}
    assert {name: files[name] for name in own} == own


def test_an_incomplete_last_line_is_skipped_with_a_warning(whole: Path, tmp_path: Path) -> None:
    with whole.open("a") as file:
        file.write('{"key": "12')
    with pytest.warns(UserWarning, match="last line"):
        assert "figure-3" not in write_report(whole, tmp_path / "report", only=["figure-3"])


def test_user_models_have_a_page_too(synthetic, tmp_path: Path) -> None:
    for lam in (0.0, 0.5, 1.0):
        synthetic.add("lerp-mine-yours", f"mine:{1 - lam} yours:{lam}", 1 - lam, lam, lam=lam, audio=True)
    left_out = write_report(synthetic.results.points.path, tmp_path / "report")
    assert "figure-3" not in left_out and "table-1" in left_out
    assert (tmp_path / "report" / "report.html").read_text().count("<audio") == 6  # the first prompt of each model


def test_without_interpolated_models_the_figures_of_the_slider_are_left_out(synthetic, tmp_path: Path) -> None:
    for name in ("base", "runs/beta0"):
        for series in ("betas", "slider"):
            synthetic.add(series, name, 1.0, 0.3)
    only = ["figure-4", "figure-8", "fronts"]
    left_out = write_report(synthetic.results.points.path, tmp_path / "report", only=only)
    assert set(left_out) == {"figure-4", "fronts"}
    assert all("series slider to be an interpolation" in why for why in left_out.values())


def test_two_models_with_one_label_are_distinguished(whole: Path, synthetic) -> None:
    synthetic.add("betas", "shipped/beta15", 1.0, 0.4, beta=15.0)
    assert {"β = 15 (runs/beta15)", "β = 15 (shipped/beta15)"} < set(headline(ReportData(whole)))
