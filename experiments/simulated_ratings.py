"""Creates ratings for trying `make train-preference`: clips of the built-in world, compared by simulated raters.

    .venv/bin/python experiments/simulated_ratings.py --clips 300 --out runs/rated

Writes WAV files and ratings.csv. The raters dislike degraded recordings, wrong notes and unsteady rhythm. Each has its
own noise (qd/data/world/rater.py), so they often disagree.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from rich.progress import track

from qd.audio.files import write_audio
from qd.builtin.preference import ring_pairs
from qd.data.world import rater, world

SPLIT = "preference"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300, help="number of recordings (default: %(default)s)")
    parser.add_argument("--partners", type=int, default=4, help="comparisons per recording (default: %(default)s)")
    parser.add_argument(
        "--raters", type=int, default=2, help="number of raters; each rates every comparison (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the raters' noise (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/rated"), help="output folder (default: %(default)s)")
    options = parser.parse_args()
    utilities = []
    for index in track(range(options.clips), "rendering"):
        clip = world.clip(SPLIT, index)
        write_audio(options.out / f"{index:04d}.wav", clip.audio, world.SAMPLE_RATE)
        utilities.append(rater.utility(clip))
    first, second = ring_pairs(options.clips, options.partners)
    a, b = np.array(utilities)[first], np.array(utilities)[second]
    rng = np.random.default_rng(options.seed)
    with open(options.out / "ratings.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["audio_a", "audio_b", "preferred", "rater"])
        for name in range(options.raters):
            for x, y, wins in zip(first, second, rater.compare(a, b, rng), strict=True):
                table.writerow([f"{x:04d}.wav", f"{y:04d}.wav", "a" if wins else "b", f"rater {name}"])
    print(f"{options.out / 'ratings.csv'}: {options.raters * len(first):,} comparisons of {options.clips} recordings")
    print(f"best possible accuracy: {rater.bayes_accuracy(a, b):.3f}")


if __name__ == "__main__":
    main()
