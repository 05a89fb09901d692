"""The whole report of a results file whose values are known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from qd.commands.report import write_report
from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData, read_training
from qd.report.figures import FIGURES
from qd.report.headline import headline
from qd.report.tables import TABLES
from tests.report.conftest import Synthetic


def test_figures_and_tables_of_a_whole_results_file(whole: Path, tmp_path: Path) -> None:
    left_out = write_report(whole, tmp_path / "report")
    assert set(left_out) == {"figure-1", "figure-2"} and all("RUNS" in why for why in left_out.values())
    drawn = [name for name in FIGURES if name not in left_out]
    for name in drawn:
        assert np.asarray(Image.open(tmp_path / "report" / f"{name}.png").convert("L")).std() > 5  # not blank
        assert "<svg" in (tmp_path / "report" / f"{name}.svg").read_text()[:1000]
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside
    assert all(f'id="{name}"' in page for name in (*drawn, *TABLES))
    assert "12 prompts × 4 samples, sampling seed 0 (betas: 0, 1)" in page
    assert page.count("<audio") == 4  # base at seed 0: two clips of two prompts; the seeds share a row
    text = (tmp_path / "report" / "report.md").read_text()
    assert all(f"({name}.png)" in text for name in drawn)


def test_a_run_named_without_its_step_is_the_same_setting(synthetic: Synthetic) -> None:
    """Points of earlier versions are; another step is another setting."""
    synthetic.add("betas", "runs/x", 1.0, 0.3, step=2000, seed=0)
    synthetic.add("betas", "runs/x/step-002000", 1.2, 0.3, step=2000, seed=1)
    synthetic.add("betas", "runs/x/step-001000", 0.5, 0.3, step=1000, seed=0)
    found = ReportData(synthetic.results.points.path).series("betas")
    assert sorted([point.seed for point in one.points] for one in found) == [[0], [0, 1]]


def test_the_tables_have_the_known_values(whole: Path) -> None:
    data = ReportData(whole)
    diverse, *_ = TABLES["table-1"].make(data).rows
    assert diverse[0] == "base" and diverse[1].startswith("2.20 [") and diverse[2].startswith("0.60 [")
    adherence = {row[0]: row[1] for row in TABLES["table-4"].make(data).rows}
    offsets = np.linspace(-0.1, 0.1, 12)
    assert adherence["β = 0"] == f"0.145 ± {offsets.std(ddof=1):.3f}"  # seeds of 1.4 / 10 and 1.5 / 10
    fad = {row[0]: row[1:] for row in TABLES["table-5"].make(data).rows}
    assert fad == {"base": ["0.090", "0.045"], **{f"β = {beta}": ["0.050", "0.025"] for beta in (0, 5, 15)}}


def test_distances_to_different_references_stand_apart(synthetic: Synthetic) -> None:
    for seed in (0, 1):
        synthetic.add("betas", "base", 0.0, 0.6, fad=0.1 + 0.2 * seed, seed=seed)
    synthetic.add("betas", "base", 0.0, 0.6, fad=8.0, reference="mine", seed=0)
    synthetic.add("betas", "runs/beta0", 1.0, 0.3, fad=6.0, reference="mine", beta=0.0)
    synthetic.add("betas", "runs/beta15", 1.0, 0.4, fad=0.3, beta=15.0)
    data = ReportData(synthetic.results.points.path)
    table = TABLES["table-5"].make(data)
    assert table.header == ["Model", "FAD to mine", "FAD∞", "FAD to pieces", "FAD∞"]
    assert table.rows == [
        ["base", "8.000", "4.000", "0.200", "0.100"],
        ["β = 0", "6.000", "3.000", "—", "—"],
        ["β = 15", "—", "—", "0.300", "0.150"],
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


def test_seeds_are_one_setting_and_their_spread_is_told(whole: Path) -> None:
    quality = headline(ReportData(whole))["β = 5"]
    assert len(quality.points) == 2
    assert quality.spread["quality"] == pytest.approx(0.1)
    assert quality.metrics["quality"].mean == pytest.approx(1.4 - 0.1 + 0.05)


def test_guidance_and_the_middle_are_told_of_all_seeds_where_these_are_series(whole: Path, synthetic) -> None:
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


def test_the_bow_beats_guidance_and_temperature(whole: Path) -> None:
    rows = {row[0]: row for row in TABLES["fronts"].make(ReportData(whole)).rows}
    assert set(rows) == {"CFG γ on base, negative prompt", "CFG γ on base, unconditional", "temperature on base",
                         "trained models"}  # fmt: skip
    temperature = rows["temperature on base"]
    assert float(temperature[4]) > 0.95 and float(temperature[3].split()[0]) > 0


def test_tensorboard_has_the_figures_and_the_sweeps(whole: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second report takes the place of the first
        write_report(whole, tmp_path / "report", only=["figure-4"])
    events = EventAccumulator(str(tmp_path / "report"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["report/figure-4"]
    curve = events.Scalars("sweep_slider/quality")
    assert [(event.step, round(event.value, 3)) for event in curve][:2] == [(0, 1.4), (25, 1.381)]
    assert [event.step for event in events.Scalars("sweep_guidance-base/diversity")] == [100, 300, 700]
    assert [event.step for event in events.Scalars("sweep_betas/quality")] == [0, 500, 1500]
    assert not any(tag.startswith("sweep_samples") for tag in events.Tags()["scalars"])  # two runs of one β


def test_points_that_do_not_compare_are_refused_until_one_kind_is_chosen(whole: Path, synthetic) -> None:
    synthetic.add("betas", "base", 0.0, 0.6, protocol="quick")
    with pytest.raises(ValueError, match="2 protocols, which do not compare: full; quick.*--protocol"):
        ReportData(whole)
    assert {point.protocol for point in ReportData(whole, protocol="full").points} == {"full"}
    synthetic.add("betas", "base", 0.0, 0.6, scorers="clap@2")
    with pytest.raises(ValueError, match="2 scorers"):
        ReportData(whole, protocol="full")
    assert {point.scorers for point in ReportData(whole, "full", "clap").points} == {"clap@2"}


def test_a_duplicate_line_counts_once(synthetic) -> None:
    for _ in range(2):
        synthetic.add("betas", "base", 0.1, 0.6)
    with pytest.warns(UserWarning, match="twice"):
        (setting,) = ReportData(synthetic.results.points.path).series("betas")
    assert len(setting.points) == 1


def test_bad_results_are_told(synthetic, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no points"):
        write_report(tmp_path / "none.jsonl", tmp_path / "report")
    point = synthetic.add("betas", "base", 0.0, 0.6)
    file = synthetic.results.points.path
    with pytest.raises(ValueError, match="no figure-5, nonsense; expected some of figure-1"):
        write_report(file, tmp_path / "report", only=["figure-5", "nonsense"])
    with pytest.raises(ValueError, match="series betas.*\n  • figure-6 needs a"):
        write_report(file, tmp_path / "report", only=["figure-6"])
    with pytest.raises(NotMeasuredError, match="betas"):
        headline(ReportData(file))
    (tmp_path / "taken").touch()
    for out in (tmp_path / "taken", tmp_path / "taken" / "report"):
        with pytest.raises(ValueError, match="out: '.*taken' is a file; expected a folder"):
            write_report(file, out)
    values = synthetic.results.per_prompt(point.key)
    values.write_bytes(values.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"\.npz cannot be read"):
        ReportData(file).series("betas")
    values.unlink()
    with pytest.raises(ValueError, match=r"\.npz is missing: the values behind the point of 'base'"):
        ReportData(file).series("betas")


def test_of_evaluations_alone_it_is_told_what_to_do(synthetic, trained, tmp_path: Path) -> None:
    for model in ("base", "beta0"):
        synthetic.add("", model, 1.0, 0.3)
    file = synthetic.results.points.path
    with pytest.raises(ValueError, match=r"2 single points .*no series.* `make sweep`.*RUNS=…") as told:
        write_report(file, tmp_path / "report")
    assert "figure-" not in str(told.value) and not (tmp_path / "report").exists()
    assert "figure-2" not in write_report(file, tmp_path / "report", runs=[trained("beta0", 0.0)])


def test_pictures_that_are_out_of_date_are_removed_and_no_others(whole: Path, synthetic, tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_report(whole, out)
    kept = {path.name: path.read_bytes() for path in out.glob("figure-*")}
    assert len(kept) == 2 * 7
    own = {"figure-1.png": kept["figure-3.png"].replace(b"qd report of", b"my figure of"), "mine.svg": b"<svg/>"}
    own["figure-3-full.png"] = kept["figure-3.png"]  # kept aside under another name
    for name, content in own.items():
        (out / name).write_bytes(content)
    write_report(whole, out, only=["figure-3", "figure-1"])  # of the same points: the others are as good as before
    found = {path.name: path.read_bytes() for path in out.glob("*.[ps][nv]g")}
    assert set(found) == {*kept, *own} and found["figure-4.png"] == kept["figure-4.png"]
    for scale in (1.0, 3.0):
        synthetic.add("guidance-base", "base", scale, 0.5, guidance_scale=scale, protocol="quick")
    left_out = write_report(whole, out, protocol="quick", only=["figure-6", "figure-4"])
    assert list(left_out) == ["figure-4"]
    found = {path.name: path.read_bytes() for path in out.glob("*.[ps][nv]g")}
    assert set(found) == {"figure-6.png", "figure-6.svg", *own}
    assert {name: found[name] for name in own} == own


def test_a_torn_last_line_is_left_out_and_told(whole: Path, tmp_path: Path) -> None:
    with whole.open("a") as file:
        file.write('{"key": "12')
    with pytest.warns(UserWarning, match="the last line"):
        assert "figure-3" not in write_report(whole, tmp_path / "report", only=["figure-3"])


def test_models_of_ones_own_have_a_page_too(synthetic, tmp_path: Path) -> None:
    for lam in (0.0, 0.5, 1.0):
        synthetic.add("lerp-mine-yours", f"mine:{1 - lam} yours:{lam}", 1 - lam, lam, lam=lam, audio=True)
    left_out = write_report(synthetic.results.points.path, tmp_path / "report")
    assert "figure-3" not in left_out and "table-1" in left_out
    assert (tmp_path / "report" / "report.html").read_text().count("<audio") == 6  # of each the first prompt


def test_a_model_trained_anew_under_its_old_name_is_refused(synthetic) -> None:
    synthetic.add("betas", "runs/x", 1.0, 0.2)
    line = synthetic.results.points.path.read_text()
    synthetic.results.points.path.write_text(
        line + line.replace('"key": "', '"key": "z').replace('"quality": 1.0', '"quality": 2.0')
    )
    with pytest.raises(ValueError, match=r"2 measurements of one model.* seed 0.*'runs/x'.* Remove the lines"):
        ReportData(synthetic.results.points.path).series("betas")


def test_two_steps_at_one_lambda_of_an_interpolation_are_refused(synthetic) -> None:
    for step in ("step-002000", "step-004000"):
        synthetic.add("betas", f"runs/b/{step}", 1.0, 0.3, beta=15.0, step=int(step[5:]))
        synthetic.add("", f"runs/a:0.5 runs/b/{step}:0.5", 1.0, 0.3, lam=0.5)
    synthetic.add("slider", "runs/a:0.5 runs/b/step-002000:0.5", 1.0, 0.3, lam=0.5)
    synthetic.add("slider", "runs/a:0.25 runs/b/step-004000:0.75", 1.0, 0.4, lam=0.75)
    data = ReportData(synthetic.results.points.path)
    assert [len(data.series(name)) for name in ("betas", "", "slider")] == [2, 2, 2]
    synthetic.add("slider", "runs/a:0.5 runs/b/step-004000:0.5", 0.9, 0.4, lam=0.5)
    told = r"2 models at λ = 0.5 of series 'slider' \(.*step-002000:0.5; .*step-004000:0.5\).* Remove the lines"
    with pytest.raises(ValueError, match=told):
        ReportData(synthetic.results.points.path).series("slider")


def test_of_a_line_over_guidance_the_newest_step_is_drawn(synthetic, tmp_path: Path) -> None:
    """And those that were measured of the step before are told, once; a list of models may have both steps."""
    for step in (2000, 4000):
        for scale in (1.0, 3.0, 5.0) if step == 2000 else (1.0, 3.0):
            model, asked = f"runs/b/step-{step:06d}", {"guidance_scale": scale, "step": step, "seed": 1}
            synthetic.add("guidance-b", model, scale + step / 1e4, 0.3, **asked)
        synthetic.add("temperature-b", f"runs/b{step}/step-{step:06d}", 1.0, 0.3, temperature=step / 2000, step=step)
        synthetic.add("betas", f"runs/b/step-{step:06d}", 1.0, 0.3, beta=15.0, step=step)
    file = synthetic.results.points.path
    with pytest.warns(UserWarning) as told:
        write_report(file, tmp_path / "report", only=["figure-6"])
    (one,) = (str(warning.message) for warning in told)
    assert "3 points of older steps are left out" in one and one.endswith("'guidance-b' has runs/b at steps 2000, 4000")
    data = ReportData(file)
    with pytest.warns(UserWarning, match="3 points"):
        data.keep_newest_steps()
    assert [(s.point.guidance_scale, s.point.step) for s in data.series("guidance-b")] == [(1.0, 4000), (3.0, 4000)]
    assert [len(data.series(name)) for name in ("temperature-b", "betas")] == [2, 2]


def test_a_slider_that_is_no_interpolation_costs_what_is_drawn_along_it(synthetic, tmp_path: Path) -> None:
    for name in ("base", "runs/beta0"):
        for series in ("betas", "slider"):
            synthetic.add(series, name, 1.0, 0.3)
    only = ["figure-4", "figure-8", "fronts"]
    left_out = write_report(synthetic.results.points.path, tmp_path / "report", only=only)
    assert set(left_out) == {"figure-4", "fronts"}
    assert all("needs series slider to be an interpolation" in why for why in left_out.values())


def test_a_run_folder_is_no_place_for_a_report(whole: Path, trained) -> None:
    run = Path(trained("beta0", 0.0))
    (run / "config.yaml").touch()
    before = sorted(run.iterdir())
    with pytest.raises(ValueError, match="beta0 is a run folder.* name another OUT"):
        write_report(whole, run, only=["figure-4"])
    assert sorted(run.iterdir()) == before


def test_two_models_of_one_label_are_told_apart(whole: Path, synthetic) -> None:
    synthetic.add("betas", "shipped/beta15", 1.0, 0.4, beta=15.0)
    assert {"β = 15 (runs/beta15)", "β = 15 (shipped/beta15)"} < set(headline(ReportData(whole)))


@pytest.fixture
def trained(tmp_path: Path):
    """Makes a run folder: two measured points, and a KL that falls if it is logged."""

    def make(name: str, beta: float, logged: bool = True, protocol: str = "quick") -> str:
        run = Synthetic(tmp_path / "runs" / name)
        for step in (0, 500):
            run.add("", f"{name}/step-{step}", 1.0 + step / 1000, 0.5, beta=beta, step=step, protocol=protocol)
        with SummaryWriter(tmp_path / "runs" / name) as writer:
            for step in range(100 if logged else 0):
                writer.add_scalar("train/kl_per_token", 1 / (1 + step), step)
        return str(tmp_path / "runs" / name)

    return make


def test_every_run_is_drawn_and_the_caption_tells_its_protocol(whole: Path, trained, tmp_path: Path) -> None:
    runs = [trained(f"run-{i}", float(i)) for i in range(10)]
    training = [read_training(run) for run in runs]
    for name in ("figure-1", "figure-2"):
        figure = FIGURES[name].draw(ReportData(whole), training)
        labels = figure.axes[0].get_legend_handles_labels()[1]
        assert labels == [f"run-{i} (β = {i})" for i in range(10)]
    assert not write_report(whole, tmp_path / "report", runs=runs, only=["figure-1", "figure-2"])
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("Along training protocol quick: 12 prompts × 4 samples") == 2
    assert text.count("Protocol full") == 1  # of the right half of Figure 1


def test_a_run_without_a_logged_kl_costs_one_figure(whole: Path, trained, tmp_path: Path) -> None:
    runs, only = [trained("silent", 1.0, logged=False)], ["figure-1", "figure-2"]
    left_out = write_report(whole, tmp_path / "report", runs=runs, only=only)
    assert list(left_out) == ["figure-2"] and "TensorBoard scalars of run silent" in left_out["figure-2"]


def test_runs_of_different_protocols_are_refused(whole: Path, trained, tmp_path: Path) -> None:
    runs = [trained("beta0", 0.0), trained("beta15", 15.0, protocol="full")]
    for name in ("figure-1", "figure-2"):
        with pytest.raises(ValueError, match=r"name those of one kind \(beta0: quick, .*; beta15: full, .*\)"):
            write_report(whole, tmp_path / "report", runs=runs, only=[name])
    assert not (tmp_path / "report").exists()


def test_a_renamed_run_keeps_its_points(trained) -> None:
    old = Path(trained("before", 1.0))
    old.rename(old.with_name("after"))
    found = read_training(old.with_name("after"))
    assert found.name == "after" and [point.step for point in found.points] == [0, 500]
