"""Time and peak memory of `qd merge`, beside mergekit-pytorch, on a random checkpoint of more than 1 GB.

    python -m venv /tmp/mergekit && /tmp/mergekit/bin/pip install mergekit==0.1.5
    python experiments/merge_benchmark.py --mergekit /tmp/mergekit/bin/mergekit-pytorch [--layers 14] [--rounds 2]

Two models of MusicGen's shapes in float32, whose decoders differ and whose text encoders are equal, in one safetensors
file each, are averaged at one λ. Each program is a process of its own, from its start to its end, and they take turns
(A B A B) on one machine; where it is busy with other things, processor time says more than wall time. Before each turn
the disk has written all that it had to. Memory is the peak of the resident memory, and of that part of it which is no
page of a file ("own"): mergekit reads through a memory map, whose pages the system could take back. It holds a shard of
its output until it writes it, 5 GB by default, and so here the whole.

They do not do quite the same: `qd merge` also compares the models, takes their fingerprints, looks for numbers that are
not finite and writes recipe and card; mergekit averages frozen tensors that are equal, where `qd merge` copies them.
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
    """Of one process: wall and processor time, and peaks of its resident memory and of what is its own of it."""

    seconds: float
    processor_seconds: float
    resident_mib: float
    own_mib: float


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes: MusicGen-small's decoder has 24 layers."""
    found: dict[str, tuple[int, ...]] = {"text_encoder.shared.weight": (32_128, TEXT_WIDTH)}
    found |= {"enc_to_dec_proj.weight": (WIDTH, TEXT_WIDTH), "enc_to_dec_proj.bias": (WIDTH,)}
    for book in range(CODEBOOKS):
        found[f"decoder.model.decoder.embed_tokens.{book}.weight"] = (TOKENS + 1, WIDTH)
        found[f"decoder.lm_heads.{book}.weight"] = (TOKENS, WIDTH)
    for layer in range(layers):
        place = f"decoder.model.decoder.layers.{layer}"
        for attention in ("self_attn", "encoder_attn"):
            found |= {f"{place}.{attention}.{part}_proj.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
            found |= {f"{place}.{attention}_layer_norm.{part}": (WIDTH,) for part in ("weight", "bias")}
        found |= {f"{place}.fc1.weight": (FFN, WIDTH), f"{place}.fc2.weight": (WIDTH, FFN)}
    return found


def write_checkpoint(folder: Path, tensors: Mapping[str, tuple[int, ...]], seed: int) -> None:
    """A model of random weights, with what makes a checkpoint beside them; all have the text encoder of seed 0."""
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
    """Of each program the command that writes the merge of ``a`` and ``b`` to a folder."""
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
    """Runs a process to its end.

    Raises:
        SystemExit: it failed; shows what it said.
    """
    os.sync()
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **environment})
        peaks = {"VmHWM": 0.0, "RssAnon": 0.0}
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            found = _memory(process.pid)
            peaks = {name: max(peak, found.get(name, 0.0)) for name, peak in peaks.items()}
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command[0]} failed with status {process.returncode}:\n{said.read()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, *peaks.values())


def _memory(pid: int) -> dict[str, float]:
    """The kernel's account of a process, in MiB; empty where it has just ended. (The peak that ``wait4`` gives begins
    with the memory of the parent that it was forked from.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def stored(folder: Path) -> dict:
    """All tensors of a folder, by name."""
    return {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in read_header(file)[0].items()
    }


def difference(first: Path, second: Path) -> tuple[float, float]:
    """Share of the numbers that differ between two merges, and the largest difference.

    Raises:
        SystemExit: they do not hold the same tensors.
    """
    a, b = stored(first), stored(second)
    if {name: (t.dtype, t.shape) for name, t in a.items()} != {name: (t.dtype, t.shape) for name, t in b.items()}:
        raise SystemExit(f"{first} and {second} do not hold the same tensors")
    unequal, largest = 0, 0.0
    for name, tensor in a.items():
        for x, y in zip(tensor.pieces(), b[name].pieces(), strict=True):
            unequal += int((x != y).sum())
            largest = max(largest, float((x - y).abs().max()))
    return unequal / sum(tensor.elements for tensor in a.values()), largest


def benchmark(folder: Path, options: argparse.Namespace) -> list[str]:
    """Rows of the table."""
    environment = {"OMP_NUM_THREADS": str(options.threads)}
    costs: dict[str, list[Cost]] = {}
    apart: dict[str, tuple[float, float]] = {}
    for number in range(options.rounds):
        for name, command in programs(folder, options.mergekit, options.lam).items():
            out = folder / name.replace(" ", "-")
            shutil.rmtree(out, ignore_errors=True)
            costs.setdefault(name, []).append(measure(command(str(out)), environment))
            print(f"round {number + 1}, {name}: {json.dumps(costs[name][-1]._asdict())}", file=sys.stderr, flush=True)
            if number == 0:
                apart[name] = difference(folder / "qd-merge", out)
    rows = []
    for name, found in costs.items():
        seconds = " | ".join(", ".join(f"{t:.1f}" for t in times) for times in list(zip(*found, strict=True))[:2])
        memory = f"{median(cost.resident_mib for cost in found):,.0f} | {median(cost.own_mib for cost in found):,.0f}"
        rows.append(f"| {name} | {seconds} | {memory} | {apart[name][0]:.2%}, {apart[name][1]:.1e} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", default="mergekit-pytorch", help="the program (default: found on the PATH)")
    parser.add_argument("--layers", type=int, default=14, help="of the decoder (14: 1.1 GB a model)")
    parser.add_argument("--lam", type=float, default=0.5, help="λ (0.5)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each program (2)")
    parser.add_argument("--threads", type=int, default=1, help="of each program (1)")
    options = parser.parse_args(arguments)
    if shutil.which(options.mergekit) is None:
        raise SystemExit(f"{options.mergekit} is not installed, and no dependency; see --help")
    tensors = shapes(options.layers)
    size = 4 * sum(torch.Size(shape).numel() for shape in tensors.values())
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 5 * size:
            raise SystemExit(f"{5 * size / 1e9:.0f} GB are needed in {folder}; make room, or set TMPDIR")
        for seed, name in enumerate("ab", start=1):
            write_checkpoint(Path(folder) / name, tensors, seed)
        rows = benchmark(Path(folder), options)
    print("| program | seconds, in turn | of processor | peak memory, MiB | of it own | differ from the first, by |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(
        f"\n{len(tensors)} tensors, {size / 1e9:.2f} GB a model, λ = {options.lam:g}; torch {version('torch')}, Python "
        f"{platform.python_version()}, {platform.machine()}, {options.threads} thread"
    )


if __name__ == "__main__":
    main()
