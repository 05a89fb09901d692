"""Memory and time of a training step on an NVIDIA GPU, by stage: MusicGen small's shape, random weights, clips of 10 s.

    python experiments/gpu_step.py --micro 64 --steps 20 --json gpu_step.json

`qd train` as it is, whose log of seconds is read; a peak of memory is that between the ends of two stages. The
checkpoint is that of `gpu_speed.py`, made if it is not there. Medians, but for the first two steps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from gpu_speed import random_checkpoint, tell

from qd.cli.main import main as qd
from qd.runs.scalars import read_scalars
from qd.runs.step_record import StepRecord

SECONDS = "train/seconds_"
took = StepRecord.took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("/tmp/musicgen-small-random"))
    parser.add_argument("--micro", type=int, default=64, help="sequences at once (64), of 128 a step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options, more = parser.parse_known_args()
    if not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU, and PyTorch for it")
    if not (options.checkpoint / "config.json").is_file():
        random_checkpoint(options.checkpoint)
    peaks: dict[str, int] = defaultdict(int)

    def note(record: StepRecord, name: str, start: float, device: torch.device) -> None:
        took(record, name, start, device)
        if device.type == "cuda":
            peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()

    with tempfile.TemporaryDirectory() as runs, patch.object(StepRecord, "took", note):
        code = qd(
            ["train", "--config", "musicgen-small", "--beta", "15", "--name", "gpu", f"model.name={options.checkpoint}",
             f"trainer.runs={runs}", f"trainer.max_steps={options.steps}", f"data.micro_batch_size={options.micro}",
             "data.batch_size=128", "trainer.log_every=1", "evaluation.n_prompts=4", "evaluation.n_samples=2",
             f"evaluation.every={options.steps}", f"trainer.save_weights_every={options.steps}",
             f"trainer.checkpoint_every={options.steps}", *more]
        )  # fmt: skip
        if code:
            return code
        logged = read_scalars(f"{runs}/gpu")
    times = {tag: [scalar.value for _, scalar in sorted(found.items())][2:] for tag, found in logged.items()}
    stages = {
        tag.removeprefix(SECONDS): median(found) for tag, found in times.items() if found and tag.startswith(SECONDS)
    }
    held = {name: peak / 2**30 for name, peak in peaks.items()}
    tell({"micro": options.micro, "seconds": stages, "peak_gib": held}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
