"""Time and peak memory of `qd merge` and mergekit-pytorch on a random checkpoint of more than 1 GB.

    python -m venv /tmp/mergekit && /tmp/mergekit/bin/pip install mergekit==0.1.5
    python experiments/merge_benchmark.py --mergekit /tmp/mergekit/bin/mergekit-pytorch [--layers 14] [--rounds 2]

Two float32 models of MusicGen's shapes are averaged at one λ. Their decoders differ, their text encoders are equal,
and each is one safetensors file. Each program is timed as a whole process, and they run in turn (A B A B) on one
machine; if the machine has other load, processor time is more reliable than wall time. Pending disk writes are flushed
before each turn. Memory is the peak of the resident memory, and of its part that is not file pages ("own"): mergekit
reads through a memory map, whose pages the system can reclaim. It keeps a shard of its output in memory until it is
full, 5 GB by default, which is the whole output here.

The programs differ a little: `qd merge` also compares the models, computes their fingerprints, checks for numbers that
are not finite, and writes a recipe and a card; mergekit averages frozen tensors that are equal, and `qd merge` copies
them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from qd.models.checkpoints.safetensors_files import PIECE, read_header, write_safetensors

WIDTH, FFN, TEXT_WIDTH, TOKENS, CODEBOOKS = 1024, 4096, 768, 2048, 4
FILE = "model.safetensors"
MIB = 2**20


class Cost(NamedTuple):
    """Cost of one process.

    Attributes:
        seconds: Wall time.
        processor_seconds: Processor time.
        resident_mib: Peak of the resident memory.
        own_mib: Peak of the resident memory without file pages.
    """

    seconds: float
    processor_seconds: float
    resident_mib: float
    own_mib: float


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors; MusicGen-small's decoder has 24 layers."""
    tensors: dict[str, tuple[int, ...]] = {"text_encoder.shared.weight": (32_128, TEXT_WIDTH)}
    tensors |= {"enc_to_dec_proj.weight": (WIDTH, TEXT_WIDTH), "enc_to_dec_proj.bias": (WIDTH,)}
    for book in range(CODEBOOKS):
        tensors[f"decoder.model.decoder.embed_tokens.{book}.weight"] = (TOKENS + 1, WIDTH)
        tensors[f"decoder.lm_heads.{book}.weight"] = (TOKENS, WIDTH)
    for layer in range(layers):
        place = f"decoder.model.decoder.layers.{layer}"
        for attention in ("self_attn", "encoder_attn"):
            tensors |= {f"{place}.{attention}.{part}_proj.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
            tensors |= {f"{place}.{attention}_layer_norm.{part}": (WIDTH,) for part in ("weight", "bias")}
        tensors |= {f"{place}.fc1.weight": (FFN, WIDTH), f"{place}.fc2.weight": (WIDTH, FFN)}
    return tensors


def write_checkpoint(folder: Path, tensors: Mapping[str, tuple[int, ...]], seed: int) -> None:
    """Writes a complete checkpoint with random weights; the text encoder has seed 0 in all of them."""
    folder.mkdir(parents=True)
    for file, text in {"config.json": '{"model_type": "musicgen"}', "tokenizer.json": "{}"}.items():
        (folder / file).write_text(text)
    (folder / "tokenizer_config.json").write_text("{}")

    def pieces(name: str) -> Iterator[Tensor]:
        drawn = 0 if name.startswith("text_encoder") else seed
        generator = torch.Generator().manual_seed(1000 * list(tensors).index(name) + drawn)
        elements = torch.Size(tensors[name]).numel()
        for first in range(0, elements, PIECE):
            yield 0.02 * torch.randn(min(PIECE, elements - first), generator=generator)

    write_safetensors(folder / FILE, {k: (torch.float32, v) for k, v in tensors.items()}, pieces, {"format": "pt"})


def programs(folder: Path, mergekit: str, lam: float) -> dict[str, Callable[[str], list[str]]]:
    """For each program, a function from the output folder to the command that merges ``a`` and ``b``."""
    weights = {"a": 1 - lam, "b": lam}
    models = [{"model": str(folder / m / FILE), "parameters": {"weight": weight}} for m, weight in weights.items()]
    (folder / "linear.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    start = "import sys; from qd.cli.main import main; sys.exit(main())"
    sources = ["--a", str(folder / "a"), "--b", str(folder / "b"), "--lambda", str(lam)]
    return {
        "qd merge": lambda out: [sys.executable, "-c", start, "merge", *sources, "--out", out],
        "mergekit-pytorch": lambda out: [mergekit, str(folder / "linear.yaml"), out, "--quiet"],
    }


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Runs a command and returns its cost.

    Raises:
        SystemExit: The command failed; the message has its output.
    """
    os.sync()
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        peaks = {"VmHWM": 0.0, "RssAnon": 0.0}
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            memory = _memory(process.pid)
            peaks = {name: max(peak, memory.get(name, 0.0)) for name, peak in peaks.items()}
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{command[0]} failed with status {process.returncode}:\n{output.read()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, *peaks.values())


def _memory(pid: int) -> dict[str, float]:
    """Memory of a process from ``/proc``, in MiB; empty if it has just ended.

    The peak that ``wait4`` returns would include the memory of the parent process at the fork.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def stored(folder: Path) -> dict:
    """The stored tensors of a folder by name."""
    return {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in read_header(file)[0].items()
    }


def difference(first: Path, second: Path) -> tuple[float, float]:
    """Share of the numbers that differ between two merges, and the largest difference.

    Raises:
        SystemExit: Their tensors have different names, types or shapes.
    """
    a, b = stored(first), stored(second)
    if {name: (t.dtype, t.shape) for name, t in a.items()} != {name: (t.dtype, t.shape) for name, t in b.items()}:
        raise SystemExit(f"{first} and {second} do not have the same tensors")
    unequal, largest = 0, 0.0
    for name, tensor in a.items():
        for x, y in zip(tensor.pieces(), b[name].pieces(), strict=True):
            unequal += int((x != y).sum())
            largest = max(largest, float((x - y).abs().max()))
    return unequal / sum(tensor.elements for tensor in a.values()), largest


def benchmark(folder: Path, options: argparse.Namespace) -> list[str]:
    """Runs all rounds and returns the rows of the table."""
    environment = {"OMP_NUM_THREADS": str(options.threads)}
    costs: dict[str, list[Cost]] = {}
    differences: dict[str, tuple[float, float]] = {}
    for number in range(options.rounds):
        for name, command in programs(folder, options.mergekit, options.lam).items():
            out = folder / name.replace(" ", "-")
            shutil.rmtree(out, ignore_errors=True)
            costs.setdefault(name, []).append(measure(command(str(out)), environment))
            print(f"round {number + 1}, {name}: {json.dumps(costs[name][-1]._asdict())}", file=sys.stderr, flush=True)
            if number == 0:
                differences[name] = difference(folder / "qd-merge", out)
    rows = []
    for name, measured in costs.items():
        seconds = " | ".join(", ".join(f"{t:.1f}" for t in times) for times in list(zip(*measured, strict=True))[:2])
        memory = (
            f"{median(cost.resident_mib for cost in measured):,.0f} | {median(cost.own_mib for cost in measured):,.0f}"
        )
        rows.append(f"| {name} | {seconds} | {memory} | {differences[name][0]:.2%}, {differences[name][1]:.1e} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mergekit", default="mergekit-pytorch", help="the program (default: mergekit-pytorch on the PATH)"
    )
    parser.add_argument("--layers", type=int, default=14, help="layers of the decoder (default: 14, 1.1 GB per model)")
    parser.add_argument("--lam", type=float, default=0.5, help="λ (default: 0.5)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each program (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each program (default: 1)")
    options = parser.parse_args(arguments)
    if shutil.which(options.mergekit) is None:
        raise SystemExit(f"{options.mergekit} is not installed; it is not a dependency of this project. See --help")
    tensors = shapes(options.layers)
    size = 4 * sum(torch.Size(shape).numel() for shape in tensors.values())
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 5 * size:
            raise SystemExit(f"{5 * size / 1e9:.0f} GB are needed in {folder}; free some space or set TMPDIR")
        for seed, name in enumerate("ab", start=1):
            write_checkpoint(Path(folder) / name, tensors, seed)
        rows = benchmark(Path(folder), options)
    print("| program | seconds of each run | processor seconds | peak memory, MiB | own, MiB | difference from first |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(
        f"\n{len(tensors)} tensors, {size / 1e9:.2f} GB per model, λ = {options.lam:g}; torch {version('torch')}, "
        f"Python {platform.python_version()}, {platform.machine()}, {options.threads} threads"
    )


if __name__ == "__main__":
    main()
