"""Memory and time of the semi-hard triplet loss, compared with pytorch-metric-learning's miner and loss.

    pip install pytorch-metric-learning==2.9.0
    python experiments/triplet_memory.py [--clips 256 1024 3840] [--repeats 5] [--threads 2] [--limit 16]

Forward and backward on unit vectors of 192 numbers, two clips per recording. Each cell is measured in a separate
process. Memory is its peak resident memory minus that of a process with the same imports and vectors but without the
loss; time is the median of the repeats after one uncounted round. A process that needs more memory than available, or
more than ``--limit`` GiB of address space, is reported as "out of memory".

Both compute the same number: squared L2 distances, margin 0.2, the mean over all triplets with
D_ap < D_an < D_ap + margin. The library squares distances from ``torch.cdist``, and ours come from one matrix product,
so a triplet at an end of the band may count in one and not in the other. The last two columns are the differences of
loss and gradient.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

import torch
import torch.nn.functional as F
from torch import Tensor

PEER = "pytorch-metric-learning"
MARGIN, WIDTH = 0.2, 192
OUT_OF_MEMORY = 77
KILLED = -9
MIB = 2**20


def batch(clips: int) -> tuple[Tensor, Tensor]:
    """Unit vectors ``(clips, WIDTH)`` and labels.

    The similarity of the two clips varies between recordings, as in the middle of training, so that some pairs are in
    triplets and some are not.
    """
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, clips // 2, WIDTH, generator=generator)
    cosine = torch.rand(clips // 2, 1, generator=generator)
    second = cosine * first + (1 - cosine.square()).sqrt() * other
    vectors = F.normalize(torch.stack([first, second], dim=1).flatten(0, 1), dim=1)
    return vectors.requires_grad_(), torch.arange(clips // 2).repeat_interleave(2)


def ours() -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of this project."""
    from qd.objectives.triplet import semi_hard_triplet

    return lambda vectors, labels: semi_hard_triplet(vectors, labels, MARGIN).loss


def peer() -> Callable[[Tensor, Tensor], Tensor]:
    """The library's miner and loss, with the same distance, margin and mean."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner

    distance = LpDistance(normalize_embeddings=False, p=2, power=2)
    miner = TripletMarginMiner(margin=MARGIN, type_of_triplets="semihard", distance=distance)
    loss = TripletMarginLoss(margin=MARGIN, distance=distance)
    return lambda vectors, labels: loss(vectors, labels, miner(vectors, labels))


def nothing(load: Callable) -> Callable[[Tensor, Tensor], Tensor]:
    """The baseline for the memory of ``load``: the same imports and vectors, and a backward pass."""
    load()
    return lambda vectors, labels: vectors.sum()


LOSSES = {
    "ours": ours,
    PEER: peer,
    "ours, baseline": lambda: nothing(ours),
    f"{PEER}, baseline": lambda: nothing(peer),
}


def work(name: str, clips: int, repeats: int, threads: int | None, limit: float | None) -> None:
    """Measures one cell in this process and prints it as JSON."""
    if threads:
        torch.set_num_threads(threads)
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (round(limit * 2**30),) * 2)
    loss, (vectors, labels) = LOSSES[name](), batch(clips)
    seconds = []
    try:
        for _ in range(repeats + 1):
            vectors.grad = None
            start = time.perf_counter()
            value = loss(vectors, labels)
            value.backward()
            seconds.append(time.perf_counter() - start)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            sys.exit(OUT_OF_MEMORY)
        raise
    unit = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss in bytes
    measured = {
        "seconds": statistics.median(seconds[1:]),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB,
        "loss": value.item(),
        "gradient": vectors.grad.flatten()[: 8 * WIDTH].tolist(),
    }
    print(json.dumps(measured))


def measure(name: str, options: argparse.Namespace, clips: int) -> dict | None:
    """Measures one cell in a separate process; None if it ran out of memory."""
    command = [sys.executable, __file__, "--worker", name, "--clips", str(clips), "--repeats", str(options.repeats)]
    for option in ("threads", "limit"):
        if (value := getattr(options, option)) is not None:
            command += [f"--{option}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode in (OUT_OF_MEMORY, KILLED):
        return None
    if done.returncode:
        raise SystemExit(f"{name} at {clips} clips failed with status {done.returncode}; see its message above")
    return json.loads(done.stdout.splitlines()[-1])


def rows(options: argparse.Namespace, clips: int) -> list[list[str]]:
    """Two rows of the table: ours and the library's."""
    cells = {name: measure(name, options, clips) for name in LOSSES}
    ours_cell, table = cells["ours"], []
    for name in ("ours", PEER):
        cell, baseline = cells[name], cells[f"{name}, baseline"]
        if cell is None or baseline is None:
            table.append([str(clips), name, "out of memory", "–", "–", "–"])
            continue
        differences = ["–", "–"]
        if ours_cell is not None and name != "ours":
            gradients = torch.tensor([cell["gradient"], ours_cell["gradient"]])
            difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
            differences = [f"{abs(cell['loss'] - ours_cell['loss']):.1e}", f"{difference:.1e}"]
        memory = f"{cell['mib'] - baseline['mib']:,.0f}"
        table.append([str(clips), name, memory, f"{cell['seconds']:.4f}", *differences])
    return table


def versions(threads: int | None) -> str:
    """One line with the versions of the libraries and the machine.

    Raises:
        SystemExit: The library is not installed; the message says how to install it.
    """
    try:
        library = version(PEER)
    except PackageNotFoundError:
        raise SystemExit(
            f"{PEER} is not installed; it is not a dependency of this project: pip install {PEER}==2.9.0"
        ) from None
    return (
        f"torch {torch.__version__}, {PEER} {library}, Python {platform.python_version()}, {platform.machine()}, "
        f"{threads or torch.get_num_threads()} threads"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clips", type=int, nargs="+", default=[256, 1024, 3840], help="clips in a batch (default: 256 1024 3840)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--limit", type=float, metavar="GIB", help="limit of a process's address space (default: none)")
    parser.add_argument("--worker", choices=LOSSES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker, options.clips[0], options.repeats, options.threads, options.limit)
        return
    line = versions(options.threads)
    print("| clips | loss | memory, MiB | seconds | difference of the loss | relative, of the gradient |")
    print("|---|---|---|---|---|---|")
    for clips in options.clips:
        for row in rows(options, clips):
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{line}")


if __name__ == "__main__":
    main()
