"""Measures the quality and diversity of the policy during training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from qd.callbacks.step_callback import StepCallback
from qd.evaluation.columns import CLEAN, EFFECTIVE, METRICS
from qd.evaluation.evaluator import Evaluator, acting_fingerprint
from qd.evaluation.figures import Landmarks, pareto_figure, sibling_trajectories
from qd.evaluation.measure import Sampling
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import FILE, Point, PointsFile
from qd.metrics.bootstrap import Interval
from qd.models.checkpoints.resolver import step_folder
from qd.models.language_model import LanguageModel

REFERENCES = ".references"
"""Folder in the runs folder for the cached measurements of base models."""


class MeasurementListener(pl.Callback):
    """A callback that receives each measurement."""

    def on_measurement(self, writer: SummaryWriter | None, step: int, measurement: Measurement) -> None:
        """Called on rank 0 after the student has been measured at ``step``.

        Args:
            writer: TensorBoard writer; None if the run has none.
            step: Optimiser step.
            measurement: The measurement.
        """


class ParetoLog(StepCallback):
    """Measures the student at step 0, every ``every`` steps and at the end.

    Each point is a line in ``points.jsonl``, with its values for each prompt in ``per_prompt/``. The loggers get it as
    scalars ``eval/*``, and TensorBoard and ``pareto.png`` in the Pareto figure. The teacher's points with and without
    guidance are measured once for all runs in the runs folder. At step 0 the student equals the teacher without
    guidance, and so does its point. The callback reads the module's ``music``, which has the student, and ``teacher``.

    Args:
        folder: Folder of the run.
        evaluator: Samples and scores.
        every: Optimiser steps between two measurements.
        guidance_scale: Guidance scale γ of the teacher.
        negative: Negative prompt of the teacher; None for unconditional guidance.
        base: Name of the model that is trained.
        beta: Diversity coefficient β of the run.
        siblings: Whether to draw the other runs in the runs folder too.
        hparams: Hyperparameters for the loggers. TensorBoard shows them with the final metrics.
    """

    def __init__(
        self,
        folder: Path,
        evaluator: Evaluator,
        *,
        every: int,
        guidance_scale: float,
        negative: str | None,
        base: str,
        beta: float,
        siblings: bool = True,
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.evaluator, self.every = Path(folder), evaluator, every
        self.guidance_scale, self.negative, self.base, self.beta = guidance_scale, negative, base, beta
        self.siblings, self.hparams = siblings, dict(hparams or {})
        self.points = PointsFile(self.folder / FILE)
        self._cached_landmarks: Landmarks | None = None
        self._teacher = ""  # its fingerprint, once computed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self.points.drop_after(trainer.global_step)
        if trainer.global_step == 0:
            self._start(trainer, pl_module)
        trainer.strategy.barrier()

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if due:
            student, sampling = pl_module.music.lm, self.evaluator.sampling()
            self._record(trainer, pl_module, self.evaluator.measure(student, sampling))
            trainer.strategy.barrier()

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Records the first point, which all runs from this model share, and the layout of the TensorBoard pages."""
        measurement = self._reference(pl_module.teacher, 1.0)
        point = self._record(trainer, pl_module, measurement)
        for logger in trainer.loggers if point else []:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(tensorboard_layout())
                means = {f"eval/{name}": interval.mean for name, interval in point.metrics.items()}
                logger.log_hyperparams(self.hparams, means)
            else:
                logger.log_hyperparams(self.hparams)

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule, measurement: Measurement) -> Point | None:
        """Records a point on the first rank, from what all ranks have measured."""
        landmarks = self._landmarks(pl_module.teacher)
        step, student = trainer.global_step, pl_module.music.lm
        sampling = self.evaluator.sampling()
        point = self.evaluator.point(
            measurement,
            self.evaluator.key(student, sampling),
            sampling,
            run=self.folder.name,
            model=str(step_folder(self.folder, step)) if step else self.base,
            step=step,
            beta=self.beta,
        )  # on all ranks, because each may hold a shard of the weights to hash
        if not trainer.is_global_zero:
            return None
        measurement.save(self.folder / "per_prompt" / f"step-{step:06d}.npz")
        self.points.append(point)
        for logger in trainer.loggers:
            logger.log_metrics(_scalars(point.metrics), step)
        writer = _writer(trainer)
        for callback in trainer.callbacks:
            if isinstance(callback, MeasurementListener):
                callback.on_measurement(writer, step, measurement)
        self._draw(writer, step, landmarks)
        return point

    def _draw(self, writer: SummaryWriter | None, step: int, landmarks: Landmarks) -> None:
        trajectory = self.points.read()
        siblings = sibling_trajectories(self.folder.parent, trajectory[-1]) if self.siblings else {}
        figure = pareto_figure(trajectory, siblings, landmarks)
        figure.savefig(self.folder / "pareto.png", dpi=110)
        if writer is not None:
            writer.add_figure("pareto", figure, step, close=False)
            writer.flush()

    def _landmarks(self, teacher: LanguageModel) -> Landmarks:
        if self._cached_landmarks is None:
            self._cached_landmarks = self._measure_landmarks(teacher)
        return self._cached_landmarks

    def _measure_landmarks(self, teacher: LanguageModel) -> Landmarks:
        points = {}
        for scale in (1.0, self.guidance_scale):
            measurement, sampling = self._reference(teacher, scale), self.evaluator.sampling(scale, self.negative)
            key = self._key(teacher, sampling)
            points[scale] = self.evaluator.point(measurement, key, sampling, run=self.base, model=self.base)
        bound = self._reference(teacher, 1.0).cross_prompt_bound
        return Landmarks(points[1.0], points[self.guidance_scale], bound)

    def _reference(self, teacher: LanguageModel, scale: float) -> Measurement:
        folder, sampling = self.folder.parent / REFERENCES, self.evaluator.sampling(scale, self.negative)
        return self.evaluator.recall(folder, self._key(teacher, sampling), teacher, sampling)

    def _key(self, teacher: LanguageModel, sampling: Sampling) -> str:
        """Returns the key of a measurement of the teacher, whose gigabytes of frozen weights are hashed once."""
        self._teacher = self._teacher or acting_fingerprint(teacher)
        return self.evaluator.key_of(self._teacher, sampling)


def _writer(trainer: pl.Trainer) -> SummaryWriter | None:
    return next((log.experiment for log in trainer.loggers if isinstance(log, TensorBoardLogger)), None)


def _scalars(metrics: Mapping[str, Interval]) -> dict[str, float]:
    suffixes = ("", "_lo", "_hi")
    return {
        f"eval/{n}{s}": value for n, interval in metrics.items() for s, value in zip(suffixes, interval, strict=True)
    }


def tensorboard_layout() -> dict[str, dict[str, list]]:
    """Returns the layout for ``SummaryWriter.add_custom_scalars``: page → chart → kind and tag patterns."""
    training = {
        "loss": ["train/loss"],
        "KL per token, nats": ["train/kl_per_token"],
        "KL per sequence, nats": ["train/kl"],
        "reward and baseline": ["train/reward", "train/baseline"],
        "β": ["train/beta"],
        "entropy per token, nats": ["train/entropy"],
        "gradient norm": ["train/grad_norm"],
        "advantage, standard deviation": ["train/advantage_std"],
        "policy gradient": ["train/policy_gradient.*"],
        "seconds of each stage": ["train/seconds_.*"],
    }
    return {
        "evaluation (95 % intervals)": {
            name: ["Margin", [f"eval/{name}", f"eval/{name}_lo", f"eval/{name}_hi"]]
            for name in (*METRICS, *CLEAN, *EFFECTIVE)
        },
        "training": {chart: ["Multiline", tags] for chart, tags in training.items()},
    }
