"""The fault campaign: kills, full disks, signals and bad inputs, in real processes.

    python -m experiments.faults [--seed 0] [--kills 100] [--only TEXT] [--jobs 1] [--page FILE]

Each fault hits a short run of the built-in base model, which is then resumed and compared with an uninterrupted one:
weights, optimiser, step folders and points must be equal bit by bit, and nothing half-written may be left. The seed
decides which faults are tried; the exact moment of a signal also depends on the machine. There is a tenth as many
signals and full disks as kills. Ends with a table, and with status 1 if anything was lost; the folder of each loss is
kept. Writes the table into the page FILE, between its two marks.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import torch

from experiments import fault_disks, fault_inputs, fault_kills, fault_signals
from experiments.bench_tools import check_page, update_page
from experiments.fault_case import Fault
from qd.metrics.formatting import markdown_table
from qd.schema.paths import home_path

INPUT = "bad input"
"""Row of all bad inputs; each one's own kind is part of its name."""
BEGIN, END = "<!-- written by make test-faults -->", "<!-- end of what was written -->"


def all_faults(seed: int, kills: int) -> list[Fault]:
    """Returns the faults of the campaign; those that need no long run come first."""
    share = -(-kills // 10)
    return [
        *(replace(fault, kind=INPUT, name=f"{fault.kind}: {fault.name}") for fault in fault_inputs.faults()),
        *fault_kills.faults(seed, kills),
        *fault_disks.faults(seed, share),
        *fault_signals.faults(seed, share),
    ]


def campaign(faults: Sequence[Fault], jobs: int = 1) -> tuple[Counter[str], Counter[str]]:
    """Tries the faults; returns the number tried and the number lost by kind."""
    tried, lost = Counter(), Counter()
    place = Path(mkdtemp(prefix="qd-faults-"))
    folders = [place / f"{number:03d}" for number in range(len(faults))]
    with ThreadPoolExecutor(jobs) as pool:
        each = pool.map if jobs > 1 else map  # bad inputs fork this process, which is safest without other threads
        for number, (fault, problem) in enumerate(zip(faults, each(outcome, faults, folders), strict=True)):
            tried[fault.kind] += fault.times
            lost[fault.kind] += fault.times if problem else 0
            said = f"LOST: {problem}; kept in {folders[number]}" if problem else "survived"
            print(f"{number + 1}/{len(faults)} · {fault.kind} ({fault.name}): {said}", flush=True)
    if not lost.total():
        shutil.rmtree(place)
    return tried, lost


def outcome(fault: Fault, folder: Path) -> str | None:
    """Causes a fault in a new folder, which is removed unless something was lost."""
    folder.mkdir()
    try:
        problem = fault.check(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if problem is None:
        shutil.rmtree(folder)
    return problem


def table(tried: Counter[str], lost: Counter[str]) -> str:
    """The table by kind, with a row of sums."""
    rows = [[kind, count, count - lost[kind], lost[kind]] for kind, count in tried.items()]
    rows.append(["**together**", tried.total(), tried.total() - lost.total(), lost.total()])
    return markdown_table(["fault", "tried", "survived", "lost"], [[str(cell) for cell in row] for row in rows])


def machine() -> str:
    """One line about the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
    return f"{cores}, {platform.system()}, torch {torch.__version__}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="decides which faults are tried (default: 0)")
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default: 100)")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only those with this text in kind or name, such as SIGTERM"
    )
    parser.add_argument("--jobs", type=int, default=1, help="faults at the same time (default: 1)")
    parser.add_argument("--page", type=home_path, help="also update this page, such as docs/reliability.md")
    options = parser.parse_args()
    if options.page:
        try:
            check_page(options.page, BEGIN, END)
        except ValueError as error:
            parser.error(str(error))
    faults = [
        fault for fault in all_faults(options.seed, options.kills) if options.only in f"{fault.kind} {fault.name}"
    ]
    if not faults or options.kills < 0 or options.jobs < 1:
        parser.error("nothing to try: check --kills, --only and --jobs")
    begin = time.monotonic()
    tried, lost = campaign(faults, options.jobs)
    command = " ".join(["python -m experiments.faults", *sys.argv[1:]])
    text = f"`{command}`: {machine()}, {(time.monotonic() - begin) / 60:.0f} minutes.\n\n{table(tried, lost)}\n"
    if options.page:
        update_page(options.page, text, BEGIN, END)
    print(f"\n{text}")
    return 1 if lost.total() else 0


if __name__ == "__main__":
    sys.exit(main())
