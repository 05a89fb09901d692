"""``qd headroom``: the quality and diversity that the objective can reach on a model, without any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qd.config.headroom import HeadroomConfig
from qd.config.loading import ConfigError
from qd.evaluation.evaluator import build_evaluator, load_scorers
from qd.evaluation.measure import EvaluationModels
from qd.evaluation.sample_bank import SampleBank
from qd.metrics.headroom import ScoredSamples, optimum, policy
from qd.models.embedders.loading import load_embedder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.musicgen import MusicGen
from qd.modules.budget.memory import check_sampling_memory
from qd.report.headroom import Row, write_headroom
from qd.runs.devices import resolve_device


def headroom(config: HeadroomConfig) -> Path:
    """Estimates the optimum of the objective for each β, and compares it with guidance and with trained models.

    Args:
        config: Valid settings, from :func:`qd.config.loading.load_config`.

    Returns:
        The folder with ``headroom.md``, ``headroom.json`` and ``headroom.png``.

    Raises:
        ConfigError: A prompt is too long for the text encoder.
        ValueError: A model, a scorer or an embedder cannot be loaded, or the device has too little memory.
    """
    draw = SampleDrawer(config)
    teacher = draw(config.model, config.guidance_scale, config.samples)
    rows = [Row("optimum", f"optimum, β = {beta:g}", optimum(teacher, beta)) for beta in config.beta]
    for scale in config.front:
        rows.append(Row("guidance", f"γ = {scale:g}", policy(draw(config.model, scale, config.front_samples))))
    for name in config.models:
        rows.append(Row("model", name, policy(draw(name, 1.0, config.front_samples))))
    title = (
        f"{config.model}, teacher at γ = {config.guidance_scale:g}: {len(teacher.embeddings)} prompts × "
        f"{config.samples} samples, seed {config.seed}"
    )
    name = f"{Path(config.model).name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(config.out) if config.out else Path("runs") / "headroom" / name
    write_headroom(folder, title, rows)
    return folder


class SampleDrawer:
    """Draws scored samples of models, with one set of scorers and embedders and one allocated model.

    Args:
        config: Settings of the command.
    """

    def __init__(self, config: HeadroomConfig) -> None:
        self.config, self.device = config, resolve_device(config.device)
        embedders = (load_embedder(name).to(self.device) for name in (config.embedder, config.eval_embedder))
        self.evaluation_models = EvaluationModels(load_scorers(config, self.device), *embedders)
        self.weights = WeightSwapper(self._check_memory)

    def __call__(self, model: str, guidance_scale: float, count: int) -> ScoredSamples:
        """Returns ``count`` samples of each prompt; shows the progress if some of them are not in the cache."""
        config = self.config
        music = self.weights.load(ModelSpec.parse(model), self.device)
        sampled = {"seconds": config.seconds, "temperature": config.temperature, "seed": config.seed}
        evaluator = build_evaluator(config, music, self.evaluation_models, **sampled)
        if problems := evaluator.problems([config.negative_prompt] if config.negative_prompt else []):
            raise ConfigError(problems)
        sampling = evaluator.sampling(guidance_scale, config.negative_prompt)
        bank = SampleBank(Path(config.cache), evaluator, self.weights.fingerprint)
        label = model if guidance_scale == 1.0 else f"{model}, γ = {guidance_scale:g}"
        with _progress(label, bank.missing(sampling, count)) as advance:
            return bank.samples(sampling, count, advance)

    def _check_memory(self, music: MusicGen) -> None:
        rows = self.config.eval_batch_size
        lower = [*([f"eval_batch_size={rows // 2}"] if rows > 1 else []), "a shorter seconds"]
        size = {"rows": rows, "seconds": self.config.seconds, "guided": True}
        check_sampling_memory(music, self.device, **size, lower=lower)


@contextmanager
def _progress(label: str, clips: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that advances a progress bar on standard error; no bar if no clip has to be drawn."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=clips == 0) as bar:
        task = bar.add_task(f"sampling {label}", total=clips)
        yield lambda drawn: bar.advance(task, drawn)
