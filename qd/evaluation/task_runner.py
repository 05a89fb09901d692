"""Measures tasks one after another with one set of scorers and embedders, one allocated model and one results file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from qd.config.measuring import MeasuringConfig
from qd.data.world.world import BUILTIN
from qd.evaluation.evaluator import Evaluator, build_evaluator, load_scorers
from qd.evaluation.fad_reference import load_reference
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point
from qd.evaluation.results import Results
from qd.evaluation.tasks import Plan, Planned, State, Task
from qd.models.embedders.loading import load_embedder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.musicgen import MusicGen
from qd.modules.budget.memory import check_sampling_memory
from qd.runs.collective import gather_objects, rank

REFERENCES = "references"
"""Folder next to the results file with the embeddings of reference recordings."""


class TaskRunner:
    """Plans and measures tasks by one protocol.

    Args:
        config: Settings of the command.
        tasks: Tasks to plan.
        device: Device of all models.

    Raises:
        ValueError: A scorer, an embedder or the reference cannot be loaded.
    """

    def __init__(self, config: MeasuringConfig, tasks: Sequence[Task], device: torch.device) -> None:
        self.config, self.tasks, self.device = config, tasks, device
        self.weights = WeightSwapper(self._check_memory)
        self.results = Results(config.out)
        embedders = (load_embedder(name).to(device) for name in (config.embedder, config.eval_embedder))
        options = {"thresholds": config.thresholds, "facets": config.facets}
        self.evaluation_models = EvaluationModels(load_scorers(config, device), *embedders, **options)
        source = (config.fad_reference or BUILTIN, config.fad_embedder or BUILTIN, config.fad_pieces)
        cache = self.results.folder / REFERENCES
        self.reference = load_reference(*source, device, cache) if any(task.fad for task in tasks) else None
        self._evaluators: dict[bool, Evaluator] = {}

    def evaluator(self, model: ModelSpec, fad: bool = False) -> Evaluator:
        """Loads the model's weights and returns its evaluator."""
        music = self.weights.load(model, self.device)
        cached = self._evaluators.get(fad)
        if cached is None or cached.music is not music:
            models = replace(self.evaluation_models, fad=self.reference) if fad else self.evaluation_models
            cached = build_evaluator(self.config, music, models, seconds=self.config.seconds)
            self._evaluators[fad] = cached
        return cached

    def plan(self) -> Plan:
        """Returns the tasks in their order with their states; equal points of one series appear once."""
        keys = [self._key(task) for task in self.tasks]
        fad = {key for task, key in zip(self.tasks, keys, strict=True) if task.fad}
        states = gather_objects(self._states(keys, fad) if rank() == 0 else None)[0]
        planned: dict[tuple[str, str], Planned] = {}
        for task, key, state in zip(self.tasks, keys, states, strict=True):
            planned.setdefault((key, task.series), Planned(task, key, state, key in fad))
        return Plan(planned.values())

    def seconds(self, plan: Plan) -> float:
        """Estimates the seconds of all new points from one measured batch per kind of sampling."""
        rates, total = {}, 0.0
        for one in plan.new:
            if one.task.passes not in rates:
                evaluator = self.evaluator(one.task.model, one.fad)
                seconds = evaluator.seconds_per_clip(one.task.sampling(self.config.seconds))
                rates[one.task.passes] = seconds * evaluator.clips
            total += rates[one.task.passes]
        return total

    def measure(self, planned: Planned) -> Point | None:
        """Adds the point to the results file; measures it first if needed.

        Returns:
            The point; None on ranks other than the first.
        """
        task, sampling = planned.task, planned.task.sampling(self.config.seconds)
        reference = self.reference.description if planned.fad else ""
        measurement = self._recall(planned.key, reference) if rank() == 0 else None
        evaluator = self.evaluator(task.model, planned.fad)
        if not gather_objects(measurement is not None)[0]:
            measurement = evaluator.measure(evaluator.music.lm, sampling)
            if rank() == 0:
                self.results.save(planned.key, measurement)
        if rank() != 0:
            return None
        named = task.model.renamed(lambda name: self.weights.source(name).label)  # the step of a run, not its name
        facts = self._facts(task) | {"model": named.text, "lam": task.model.lam, "series": task.series}
        point = evaluator.point(measurement, planned.key, sampling, **facts)
        self.results.points.append(point)
        return point

    def _check_memory(self, music: MusicGen) -> None:
        rows = min(self.config.eval_batch_size, self.config.protocol_for(self.config.seconds).rows(ranks=1))
        lower = [*([f"eval_batch_size={rows // 2}"] if rows > 1 else []), "a shorter seconds"]
        guided = any(task.guided for task in self.tasks)
        check_sampling_memory(music, self.device, rows=rows, seconds=self.config.seconds, guided=guided, lower=lower)

    def _key(self, task: Task) -> str:
        evaluator = self.evaluator(task.model)
        return evaluator.key_of(self.weights.fingerprint, task.sampling(self.config.seconds))

    def _states(self, keys: Sequence[str], fad: set[str]) -> list[State]:
        """State of each task; for the keys in ``fad``, the points of all series need the Fréchet audio distance."""
        points = [point for point in self.results.points.read() if point.has_facets or not self.config.facets]
        written = {(point.key, point.series, reference) for point in points for reference in ("", point.fad_reference)}
        states, planned = [], set()
        for task, key in zip(self.tasks, keys, strict=True):
            reference = self.reference.description if key in fad else ""
            if (key, task.series, reference) in written:
                states.append(State.DONE)
                continue
            measured = key in planned or self._recall(key, reference) is not None
            states.append(State.MEASURED if measured else State.NEW)
            planned.add(key)
        return states

    def _recall(self, key: str, reference: str) -> Measurement | None:
        return self.results.recall(key, reference, self.config.facets)

    def _facts(self, task: Task) -> dict[str, object]:
        """Run, step and β of a single model, from the recipe in its folder; a sum of models has none."""
        if task.model.merged:
            return {"run": ""}
        (name,) = task.model.names
        recipe = self.weights.source(name).recipe or {}
        config = recipe.get("config", {})
        return {
            "run": recipe.get("run", Path(name).name),
            "step": recipe.get("step", 0),
            "beta": config.get("beta"),
        }
