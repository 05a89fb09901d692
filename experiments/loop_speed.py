"""The guided token loop in C++, 32 clips of 4 s: with and without attention to the text in rows that have no text.

    python experiments/loop_speed.py [--repeats 7]

One thread, and the processor's time, in turn (A B A B …). For where the time goes, on Linux:

    perf record --output loop.perf python experiments/loop_speed.py
    perf report --input loop.perf --dsos=$(ls -t ~/.cache/qd | head -1)
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from unittest.mock import patch

import torch
from bench import GUIDANCE, SECONDS, sampling
from bench_timing import alternate

from qd.models import token_loop
from qd.models.musicgen import MusicGen
from qd.models.sampler import Sampled
from qd.quiet import quieten_libraries


class _AllRowsHear(token_loop._Work):
    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.negative_text = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="of each (7)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quieten_libraries()
    music = MusicGen.load("base")
    loop = sampling(music, 32, music.frames(SECONDS))

    def in_all_rows() -> Sampled:
        with patch.object(token_loop, "_Work", _AllRowsHear):
            return loop(GUIDANCE)

    before, now = in_all_rows(), loop(GUIDANCE)
    equal = torch.equal(before.codes, now.codes) and torch.equal(before.log_probs, now.log_probs)
    times = alternate(
        {"all rows": in_all_rows, "rows with text": lambda: loop(GUIDANCE)}, options.repeats, time.process_time
    )
    print({name: round(seconds, 3) for name, seconds in times.items()}, "equal" if equal else "different")


if __name__ == "__main__":
    main()
