"""The token loop in C++, 32 clips of 4 s, beside changed forms of itself.

    python experiments/loop_speed.py [--repeats 7] [--batch 32] [--beside changed.cpp …]

One thread, and the processor's time, in turn (A B A B …), without and with guidance: ``token_loop.cpp`` and each file
that ``--beside`` names, a changed copy of it. Without such files it is the guided loop with and without attention to
the text in rows that have no text. For where the time goes, on Linux:

    perf record --output loop.perf python experiments/loop_speed.py
    perf report --input loop.perf --dsos=$(ls -t ~/.cache/qd | head -1)
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench import GUIDANCE, SECONDS, sampling
from bench_timing import alternate

from qd.models.musicgen import MusicGen
from qd.models.sampling import compiled, token_loop
from qd.models.sampling.sampler import Sampled
from qd.runs.quiet import quieten_libraries

Loop = Callable[[float], Sampled]


class _AllRowsHear(token_loop._Work):
    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.negative_text = True


def in_all_rows(loop: Loop) -> Loop:
    def run(scale: float) -> Sampled:
        with patch.object(token_loop, "_Work", _AllRowsHear):
            return loop(scale)

    return run


def compiled_from(source: Path, loop: Loop) -> Loop:
    with patch.object(compiled, "SOURCE", source):
        library = ctypes.CDLL(str(compiled.compiled(compiled.find_compiler(), compiled.library_folder())))

    def run(scale: float) -> Sampled:
        with patch.object(token_loop, "load_library", lambda: library):
            return loop(scale)

    return run


def compare(loops: dict[str, Loop], scale: float, repeats: int) -> None:
    """Prints the time of each, its ratio to the first one's, and whether it draws the same to the bit."""
    drawn = [loop(scale) for loop in loops.values()]
    times = alternate({name: lambda f=f: f(scale) for name, f in loops.items()}, repeats, time.process_time)
    first = next(iter(times.values()))
    for (name, seconds), sample in zip(times.items(), drawn, strict=True):
        equal = torch.equal(sample.codes, drawn[0].codes) and torch.equal(sample.log_probs, drawn[0].log_probs)
        same = "equal" if equal else "different"
        print(f"guidance {scale:g}, {name}: {seconds:.3f} s, {seconds / first:.3f} times the first, {same}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="of each (7)")
    parser.add_argument("--batch", type=int, default=32, help="clips (32)")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="changed copies of token_loop.cpp")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quieten_libraries()
    music = MusicGen.load("base")
    loop: Loop = sampling(music, options.batch, music.frames(SECONDS))
    if not options.beside:
        compare({"rows with text": loop, "all rows": in_all_rows(loop)}, GUIDANCE, options.repeats)
        return
    loops = {"as it is": loop} | {source.stem: compiled_from(source, loop) for source in options.beside}
    for scale in (1.0, GUIDANCE):
        compare(loops, scale, options.repeats)


if __name__ == "__main__":
    main()
