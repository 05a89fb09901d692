from __future__ import annotations

import copy
import csv

import lightning.pytorch as pl
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from qd.callbacks.audio_log import AudioLog
from qd.callbacks.pareto_log import ParetoLog
from qd.config.protocols import Protocol
from qd.evaluation.evaluator import Evaluator, acting_fingerprint
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import PointsFile
from qd.models.embedders.audio_vit import AudioViT
from qd.models.musicgen import MusicGen
from qd.runs.loggers import build_loggers
from qd.scorers.protocol import Quality
from tests.power_scorer import PowerScorer


class DriftingStudent(pl.LightningModule):
    """A student that changes a little in each step, with its frozen initial copy as teacher."""

    def __init__(self, music: MusicGen) -> None:
        super().__init__()
        self.music, self.teacher = music, copy.deepcopy(music.lm).requires_grad_(False)

    def training_step(self, batch, batch_index):
        return self.music.lm.decoder.lm_heads[0].weight.square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.music.lm.parameters(), lr=1.0)


@pytest.fixture
def evaluator_of(tiny_embedder, tmp_path):
    embedder = AudioViT.from_pretrained(tiny_embedder)
    evaluation_models = EvaluationModels(
        Quality(PowerScorer("adherence"), PowerScorer("preference")), embedder, embedder
    )
    file = tmp_path / "prompts.txt"
    file.write_text("a calm piano piece\nfast drums\n")
    protocol = Protocol("quick", "development", 2, 2, 0.32, str(file))
    return lambda music: Evaluator(music, evaluation_models, protocol, audio_prompts=1)


@pytest.fixture
def fit(tiny_model, evaluator_of, tmp_path):
    """Runs a few steps of the run ``name``. Returns the evaluator, which records its calls."""

    def run(name: str, max_steps: int = 3, every: int = 2, accumulate: int = 1, checkpoint=None, loggers=()):
        module = DriftingStudent(MusicGen.load(tiny_model))
        evaluator = evaluator_of(module.music)
        evaluator.calls = []
        measure = evaluator.measure
        evaluator.measure = lambda lm, sampling: evaluator.calls.append(sampling) or measure(lm, sampling)
        folder = tmp_path / "runs" / name
        pareto = ParetoLog(
            folder, evaluator, every=every, guidance_scale=3.0, negative="fast", base="base", beta=15.0,
            hparams={"beta": 15.0},
        )  # fmt: skip
        trainer = pl.Trainer(
            max_steps=max_steps, max_epochs=-1, accelerator="cpu", callbacks=[pareto, AudioLog()],
            logger=build_loggers(loggers, {}, folder),
            accumulate_grad_batches=accumulate, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(torch.zeros(8, 1)), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / "last.ckpt")
        return evaluator

    return run


def points(tmp_path, name):
    return PointsFile(tmp_path / "runs" / name / "points.jsonl").read()


def test_the_student_is_measured_at_the_start_every_few_steps_and_at_the_end(fit, tmp_path):
    evaluator = fit("a", max_steps=3, every=2, accumulate=2)
    written = points(tmp_path, "a")
    assert [point.step for point in written] == [0, 2, 3]
    assert [sampling.guidance_scale for sampling in evaluator.calls] == [1.0, 3.0, 1.0, 1.0]
    assert len({point.key for point in written}) == 3
    assert written[0].model == "base" and written[2].model.endswith("a/step-000003") and written[2].beta == 15.0
    run = tmp_path / "runs" / "a"
    assert (run / "pareto.png").stat().st_size > 5_000
    values = Measurement.load(run / "per_prompt" / "step-000002.npz")
    assert values.per_prompt["quality"].mean() == pytest.approx(written[1].metrics["quality"].mean)


def test_the_frozen_teacher_is_hashed_once(fit, monkeypatch):
    hashed = []

    def recorded(lm):
        hashed.append(lm)
        return acting_fingerprint(lm)

    for module in ("qd.callbacks.pareto_log", "qd.evaluation.evaluator"):
        monkeypatch.setattr(f"{module}.acting_fingerprint", recorded)
    fit("a", max_steps=2, every=1)
    teachers = [lm for lm in hashed if not next(lm.parameters()).requires_grad]
    assert len(teachers) == 1 and len(hashed) == 1 + 3  # the student at steps 0, 1 and 2


def test_siblings_share_the_references_and_the_first_point(fit, tmp_path):
    fit("a", max_steps=1)
    evaluator = fit("b", max_steps=1)
    assert [sampling.guidance_scale for sampling in evaluator.calls] == [1.0]  # only the trained student
    a, b = points(tmp_path, "a")[0], points(tmp_path, "b")[0]
    assert a.key == b.key and a.metrics == b.metrics and (a.run, b.run) == ("a", "b")
    assert len(list((tmp_path / "runs" / ".references").iterdir())) == 2


def test_a_resumed_run_repeats_the_measurements_after_its_checkpoint(fit, tmp_path):
    fit("a", max_steps=1, every=1)
    checkpoint = str(tmp_path / "runs" / "a" / "last.ckpt")
    whole = points(tmp_path, "a")
    fit("b", max_steps=3, every=1)
    file = PointsFile(tmp_path / "runs" / "a" / "points.jsonl")
    file.append(points(tmp_path, "b")[2])  # a point after the checkpoint, as a killed run leaves it
    fit("a", max_steps=3, every=1, checkpoint=checkpoint)
    resumed = points(tmp_path, "a")
    assert [point.step for point in resumed] == [0, 1, 2, 3]
    assert resumed[:2] == whole
    assert [point.metrics for point in resumed] == [point.metrics for point in points(tmp_path, "b")]


def test_tensorboard_has_scalars_figure_audio_layout_and_hyperparameters(fit, tmp_path):
    fit("a", max_steps=2, every=1, loggers=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "runs" / "a"), size_guidance={"images": 0, "audio": 0}).Reload()
    tags = events.Tags()
    for name, interval in points(tmp_path, "a")[-1].metrics.items():
        for suffix, value in zip(("", "_lo", "_hi"), interval, strict=True):
            last = events.Scalars(f"eval/{name}{suffix}")[-1]
            assert last.step == 2 and last.value == pytest.approx(value, rel=1e-5)
    assert [image.step for image in events.Images("pareto")] == [0, 1, 2] and "spectrograms" in tags["images"]
    assert tags["audio"] == ["samples/0 a calm piano piece", "samples/0 a calm piano piece (2)"]
    assert "custom_scalars__config__" in tags["tensors"]
    assert any("hparams" in tag for tag in events.summary_metadata)


def test_without_tensorboard_there_are_scalars_hyperparameters_and_the_figure_file(fit, tmp_path):
    fit("a", max_steps=2, every=1, loggers=["csv"])
    run = tmp_path / "runs" / "a"
    with (run / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = points(tmp_path, "a")
    assert [int(row["step"]) for row in rows] == [point.step for point in measured] == [0, 1, 2]
    for row, point in zip(rows, measured, strict=True):
        for name, interval in point.metrics.items():
            values = [float(row[f"eval/{name}{suffix}"]) for suffix in ("", "_lo", "_hi")]
            assert values == pytest.approx(list(interval))
    assert yaml.safe_load((run / "csv" / "version_0" / "hparams.yaml").read_text()) == {"beta": 15.0}
    assert (run / "pareto.png").is_file() and not list(run.glob("events*"))


def test_a_measurement_does_not_change_the_global_random_state(tiny_model, evaluator_of):
    music = MusicGen.load(tiny_model)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluator = evaluator_of(music)
    evaluator.measure(music.lm, evaluator.sampling(3.0))
    assert torch.equal(torch.get_rng_state(), before)
