"""Peak memory and time of KL and log-probabilities at the shape of musicgen-small, in chunks and all at once.

    python experiments/scoring_memory.py [--threads 2]

32 clips of 10 s, 4 codebooks of 2048, width 1024; forward and backward, each form in a separate process. Memory is
the peak above the memory of the inputs. The gradient norms of both forms must agree. The floor is the number of
operations of the matrix products at the rate of a 2048² float32 product, measured in the process of our form.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from bench_tools import SCORING, alternate_with_rates, row, table
from torch import Tensor

from qd.models.delay import delay_mask
from qd.objectives.distillation import LOGITS_AT_ONCE, score_tokens

TEMPERATURE = 0.99
SMALL = {"batch": 32, "codebooks": 4, "frames": 500, "vocabulary": 2048, "width": 1024}
"""musicgen-small's heads over 32 clips of 10 s."""


def memory_row() -> dict[str, Any]:
    """Seconds, peak memory and gradient norms of the plain form and of ours, as a row of the benchmark."""
    measured = {}
    for form in ("plain", "chunks"):
        command = [sys.executable, __file__, "--worker", form, "--threads", str(torch.get_num_threads())]
        measured[form] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    plain, ours = measured["plain"], measured["chunks"]
    times = {"reference": plain["seconds"], "ours": ours["seconds"], "floor": product_operations(SMALL) / ours["rate"]}
    seconds = row(f"{SCORING}, musicgen-small, 32 × 10 s", **times, gflops=ours["rate"] / 1e9)
    memory = {"reference MiB": plain["MiB"], "MiB": ours["MiB"]}
    return {**seconds, **memory, "gradient norms": [plain["gradient norms"], ours["gradient norms"]]}


def product_operations(shape: Mapping[str, int]) -> int:
    """Operations that every form needs: the student's forward and two backward products, the teacher's forward."""
    s = SimpleNamespace(**shape)
    steps = delay_mask(s.codebooks, s.frames).shape[1]
    return 4 * 2 * s.batch * steps * s.width * s.codebooks * s.vocabulary


def score_once(form: str, shape: Mapping[str, int] = SMALL) -> dict[str, Any]:
    """Runs KL and log-probabilities forward and backward; the peak memory does not include the inputs."""
    s = SimpleNamespace(**shape)
    generator = torch.Generator().manual_seed(0)
    mask = delay_mask(s.codebooks, s.frames)
    hidden, guided = (torch.randn(s.batch, mask.shape[1], s.width, generator=generator) for _ in range(2))
    weights = [0.03 * torch.randn(s.codebooks * s.vocabulary, s.width, generator=generator) for _ in range(2)]
    tokens = torch.randint(s.vocabulary, (s.batch, *mask.shape), generator=generator)
    student = hidden.requires_grad_(), _heads(weights[0].requires_grad_(), s.codebooks)
    teacher = guided, _heads(weights[1], s.codebooks)
    before, start = _peak_mib(), time.perf_counter()
    at_once = LOGITS_AT_ONCE if form == "chunks" else sys.maxsize
    kl, log_probs = score_tokens(student, teacher, tokens, mask, TEMPERATURE, at_once)
    (kl.mean() + log_probs.mean()).backward()
    peak = _peak_mib() - before
    grads = [float(hidden.grad.norm()), float(weights[0].grad.norm())]
    return {"seconds": time.perf_counter() - start, "MiB": peak, "gradient norms": grads}


def _peak_mib() -> float:
    """Peak memory of this process, on Linux. ``ru_maxrss`` would start at the peak of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _heads(weight: Tensor, codebooks: int) -> Callable[[Tensor], Tensor]:
    return lambda states: (states @ weight.T).unflatten(-1, (codebooks, -1)).transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--worker", choices=("plain", "chunks"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.worker:
        scored = score_once(options.worker)
        _, rates = alternate_with_rates({}, repeats=3)  # only now, since its tensors would count in the peak
        print(json.dumps({**scored, "rate": rates.flops}))
        return
    measured = memory_row()
    print(table([measured]), f"\ngradient norms of states and heads, plain and in chunks: {measured['gradient norms']}")


if __name__ == "__main__":
    main()
