"""The bad inputs of the fault campaign; `python experiments/fault_inputs.py --show` prints the answer to each one."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import fault_audio, fault_models, fault_runs, fault_tables
from experiments.fault_attempt import read
from experiments.fault_case import Fault


def faults() -> list[Fault]:
    """Returns all bad inputs."""
    return [*fault_tables.faults(), *fault_audio.faults(), *fault_models.faults(), *fault_runs.faults()]


def main() -> int:
    """Tries the inputs; returns 1 if one of them is not handled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="print the program's answer to each input")
    parser.add_argument("--only", default="", help="part of the kind or the name of the inputs to try")
    options = parser.parse_args()
    chosen = [fault for fault in faults() if options.only in f"{fault.kind}: {fault.name}"]
    lost = 0
    for fault in chosen:
        folder, started = Path(tempfile.mkdtemp(prefix="qd-fault-")), time.monotonic()
        problem = fault.check(folder)
        lost += problem is not None
        print(f"{'LOST' if problem else 'ok':4} {time.monotonic() - started:5.1f} s  {fault.kind}: {fault.name}")
        if options.show and (folder / "stderr").is_file():
            print(read(folder / "stdout")[-600:] + read(folder / "stderr")[-1500:])
        print(f"  >>> {problem}\n" if problem else "", end="", flush=True)
        shutil.rmtree(folder)
    print(f"{len(chosen)} inputs, {lost} not handled")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
