"""Where a training step reads a number from its device: at each such read the program waits for the GPU."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import qd
import qd.models.sampling.sampler
from qd.callbacks.beta_schedule import BetaSchedule
from qd.callbacks.guards import CollapseWarning, NonFiniteGuard
from qd.callbacks.progress import StepProgress
from qd.config.train import TrainConfig
from qd.data.prompts import PromptDataModule
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.objectives.baselines import build_baseline

QD = Path(qd.__file__).parent
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::bincount"}
"""Operators that give the program a value or a size from the device: ``item``, ``bool(tensor)``, boolean indices, …"""


class Reads(TorchDispatchMode):
    """Counts reads by operator and by the function in ``qd`` that causes them; also methods that copy to the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        for name in ("tolist", "cpu", "numpy"):
            monkeypatch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        masked = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in READS or masked:
            self._count(name)
        return func(*args, **(kwargs or {}))

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._count(name)
            return method(tensor, *args, **kwargs)

        return counted

    def _count(self, name: str) -> None:
        frame = sys._getframe(2)
        files = []
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            files.append(str(path))
            if path.is_relative_to(QD):
                self.counts[f"{path.relative_to(QD)} {frame.f_code.co_name}: {name.removeprefix('aten::')}"] += 1
                return
            frame = frame.f_back
        if not any("/torch/optim/" in file for file in files):  # its step counters are in CPU memory
            self.counts[f"{files[0]}: {name}"] += 1


def reads_of(config: TrainConfig, steps: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Counter[str]:
    music = MusicGen.load(config.model.name)
    baseline = build_baseline(config.objective.baseline, decay=0.9, feature_width=1)
    module = DiversityDistillation(music, load_embedder(config.reward.embedder), baseline, config)
    data = PromptDataModule(
        config.data.prompts, batch_size=config.data.batch_size, micro_batch_size=config.data.micro_batch_size,
        samples_per_prompt=config.rollout.samples_per_prompt, seed=config.seed,
    )  # fmt: skip
    callbacks = [BetaSchedule(1.0, 5), NonFiniteGuard(folder), CollapseWarning(), StepProgress(1000)]
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, accumulate_grad_batches=data.accumulation(1), callbacks=callbacks,
        gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings(), monkeypatch.context() as patched, Reads(patched) as reads:
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    return reads.counts


A_MICRO_BATCH = {
    # transformers checks whether all text tokens are real, and then omits the mask.
    "models/musicgen.py condition: _local_scalar_dense": 1,
    "models/language_model.py hidden_states: _local_scalar_dense": 2,  # student and teacher
    # Which rows share a prompt, before the first token is sampled: the program waits only for the text encoder.
    "models/sampling/cached_decoder.py shared_rows: nonzero": 1,
    "models/sampling/cached_decoder.py shared_rows: tolist": 1,
    # A number in CPU memory: no device is read.
    "models/sampling/sampler.py sampling_problems: _local_scalar_dense": 1,
    # Only on a CPU: the lowest and the highest code, and their check against the codebook.
    "models/codecs/codec.py decode: _local_scalar_dense": 3,
}
A_STEP = {
    # Whether the step would damage the weights; this must be known before the step.
    "callbacks/guards.py on_before_optimizer_step: _local_scalar_dense": 1,
    # After the step, when the device has finished: all numbers of the step in one copy.
    "runs/step_record.py summary: tolist": 1,
}


def test_a_step_waits_only_where_it_must(tiny_config, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(qd.models.sampling.sampler, "runs_compiled", lambda lm: False)  # the loop that runs on a GPU
    config = tiny_config("guidance.scale=3", "data.batch_size=16", "data.micro_batch_size=8")
    assert config.guidance.negative_prompt and config.objective.baseline == "prompt_moving_average"
    # The difference leaves out what the first step and the end of the run add.
    few, many = (reads_of(config, steps, monkeypatch, tmp_path) for steps in (1, 3))
    assert dict(many - few) == {where: 2 * 2 * count for where, count in A_MICRO_BATCH.items()} | {
        where: 2 * count for where, count in A_STEP.items()
    }


def test_a_read_is_counted(monkeypatch) -> None:
    values = torch.tensor([1.0, 0.0])
    with monkeypatch.context() as patched, Reads(patched) as reads:
        assert values[0].item() == 1.0
        assert values[values > 0].tolist() == [1.0]
        assert bool(values[0])
    names = Counter(name.rpartition(" ")[2] for name in reads.counts.elements())
    assert names["aten::_local_scalar_dense"] == 2 and names["tolist"] == 1 and names["aten::index"] == 1
