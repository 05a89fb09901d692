"""Where models are measured one after another: scorers and embedders, one allocated model, and the results file."""

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
from qd.evaluation.points import Point
from qd.evaluation.results import Results
from qd.evaluation.tasks import Planned, State, Task
from qd.models.embedders.loading import load_embedder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.musicgen import MusicGen
from qd.modules.budget.memory import check_sampling_memory
from qd.runs.collective import gather_objects, rank

REFERENCES = "references"
"""Folder beside the results file, of reference recordings as embedders hear them."""


class TaskRunner:
    """Measures tasks by one protocol with one set of scorers and embedders.

    Args:
        config: of the command.
        device: of everything.
        fad: whether any task wants the Fréchet audio distance.
        guided: whether any task has guidance.
    """

    def __init__(self, config: MeasuringConfig, device: torch.device, fad: bool, guided: bool = False) -> None:
        self.config, self.device, self.guided = config, device, guided
        self.weights = WeightSwapper(self._check_memory)
        self.results = Results(config.out)
        embedders = (load_embedder(name).to(device) for name in (config.embedder, config.eval_embedder))
        self.evaluation_models = EvaluationModels(load_scorers(config, device), *embedders)
        cache = self.results.folder / REFERENCES
        asked = (config.fad_reference or BUILTIN, config.fad_embedder or BUILTIN, config.fad_pieces)
        self.reference = load_reference(*asked, device, cache) if fad else None
        self._evaluators: dict[bool, Evaluator] = {}

    def evaluator(self, music: MusicGen, fad: bool = False) -> Evaluator:
        """What measures this model."""
        kept = self._evaluators.get(fad)
        if kept is None or kept.music is not music:
            evaluation_models = replace(self.evaluation_models, fad=self.reference) if fad else self.evaluation_models
            kept = build_evaluator(self.config, music, evaluation_models, seconds=self.config.seconds)
            self._evaluators[fad] = kept
        return kept

    def plan(self, tasks: Sequence[Task]) -> list[Planned]:
        """What is left of the tasks, in their order; what two of one series would measure twice is there once."""
        keys = [self._key(task) for task in tasks]
        fad = {key for task, key in zip(tasks, keys, strict=True) if task.fad}
        states = gather_objects(self._states(tasks, keys, fad) if rank() == 0 else None)[0]
        planned: dict[tuple[str, str], Planned] = {}
        for task, key, state in zip(tasks, keys, states, strict=True):
            planned.setdefault((key, task.series), Planned(task, key, state, key in fad))
        return list(planned.values())

    def measure(self, planned: Planned) -> Point | None:
        """Adds the point to the results file, measured if it was not before; None on ranks other than the first."""
        task, sampling = planned.task, planned.task.sampling(self.config.seconds)
        wanted = self.reference.description if planned.fad else ""
        kept = self.results.recall(planned.key, wanted) if rank() == 0 else None
        music = self.weights.load(task.model, self.device)
        evaluator = self.evaluator(music, planned.fad)
        if not gather_objects(kept is not None)[0]:
            kept = evaluator.measure(music.lm, sampling)
            if rank() == 0:
                self.results.keep(planned.key, kept)
        if rank() != 0:
            return None
        named = task.model.renamed(lambda name: self.weights.source(name).label)  # the very step, of a run's name
        facts = self._facts(task) | {"model": named.text, "lam": task.model.lam, "series": task.series}
        point = evaluator.point(kept, planned.key, sampling, **facts)
        self.results.points.append(point)
        return point

    def _check_memory(self, music: MusicGen) -> None:
        rows = min(self.config.eval_batch_size, self.config.protocol_for(self.config.seconds).rows(ranks=1))
        lower = [*([f"eval_batch_size={rows // 2}"] if rows > 1 else []), "a shorter seconds"]
        asked = {"rows": rows, "seconds": self.config.seconds, "guided": self.guided}
        check_sampling_memory(music, self.device, **asked, lower=lower)

    def _key(self, task: Task) -> str:
        music = self.weights.load(task.model, self.device)
        return self.evaluator(music).key_of(self.weights.fingerprint, task.sampling(self.config.seconds))

    def _states(self, tasks: Sequence[Task], keys: Sequence[str], fad: set[str]) -> list[State]:
        """Of each task; where one wants the distance (``fad``: their keys) the lines of all series are to have it."""
        points = self.results.points.read()
        written = {(point.key, point.series, reference) for point in points for reference in ("", point.fad_reference)}
        states, coming = [], set()
        for task, key in zip(tasks, keys, strict=True):
            reference = self.reference.description if key in fad else ""
            if (key, task.series, reference) in written:
                states.append(State.THERE)
                continue
            known = key in coming or self.results.recall(key, reference) is not None
            states.append(State.KNOWN if known else State.NEW)
            coming.add(key)
        return states

    def _facts(self, task: Task) -> dict[str, object]:
        """Run, step and β of a model by itself, as its folder's recipe tells them; of a sum there are none."""
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
