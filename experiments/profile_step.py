"""Profiles training steps: the most expensive operators, and a trace for chrome://tracing or Perfetto.

    python experiments/profile_step.py [--steps 2] [--out DIR] [key=value …]

Settings and device are those of ``qd train``. Writes ``trace.json`` and ``operators.txt`` into DIR, and prints the
table of operators and the seconds of each stage, as a run logs them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from qd.commands.train_preflight import resolve_precision
from qd.config.loading import load_config
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.models.embedders.loading import load_embedder
from qd.modules.distillation import DiversityDistillation
from qd.modules.policy import load_policy
from qd.objectives.baselines import build_baseline
from qd.runs.devices import resolve_device
from qd.runs.disk import try_writing
from qd.runs.quiet import quieten_libraries
from qd.schema.paths import home_path

PROMPTS = ["A slow jazz tune with a trumpet melody.", "A happy folk song."]


def build_module(config: TrainConfig) -> DiversityDistillation:
    """The run's module on its device, without a trainer and without gradient diagnostics, as in 49 of 50 steps."""
    device = resolve_device(config.trainer.device)
    config = resolve_precision(config, device)
    music = load_policy(config.model, config.seed)
    width = music.text_encoder.config.hidden_size
    baseline = build_baseline(config.objective.baseline, decay=config.objective.baseline_decay, feature_width=width)
    return _AfterFirstStep(music, load_embedder(config.reward.embedder), baseline, config).to(device)


class _AfterFirstStep(DiversityDistillation):
    global_step = 1

    def training_step(self, batch: PromptBatch, batch_idx: int) -> torch.Tensor:
        """A training step in the trainer's precision."""
        mixed = self.config.trainer.precision == "bf16-mixed"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            return super().training_step(batch, batch_idx)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="profiled steps, after one warm-up step (default: 2)")
    parser.add_argument(
        "--out", type=home_path, default=Path("runs/profile"), help="results folder (default: runs/profile)"
    )
    parser.add_argument("overrides", nargs="*", help="settings, such as data.batch_size=32")
    options = parser.parse_args()
    try_writing(options.out)
    quieten_libraries()
    config = load_config(TrainConfig, "train", overrides=options.overrides)
    module = build_module(config)
    prompts = [PROMPTS[i % 2] for i in range(config.data.micro_batch_size // config.rollout.samples_per_prompt)]
    batch = PromptBatch(prompts, list(range(len(prompts))))

    def step() -> None:
        module.training_step(batch, 0).backward()

    step()
    module.reset_records()
    on_gpu = module.device.type == "cuda"
    with torch.profiler.profile() as profile:  # includes the GPU, if there is one
        for _ in range(options.steps):
            step()
    options.out.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(options.out / "trace.json"))
    order = f"self_{'device' if on_gpu else 'cpu'}_time_total"
    operators = profile.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=45)
    stages = [f"{name}: {seconds / options.steps:.3f} s a step" for name, seconds in module.record.seconds.items()]
    report = "\n".join([operators, *stages, ""])
    (options.out / "operators.txt").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
