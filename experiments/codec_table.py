"""Compares codecs: tokens of a clip, reconstruction, and what a listener still recognises after the codec.

    python experiments/codec_table.py runs/codecs/*/codec/asset

The listener is the classifier of ``experiments/builtin_classifier.py``, trained on clean clips without a codec. It
names the genre and the lead timbre of other clean clips, as they are and after each codec.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from experiments.builtin_classifier import accuracies, clean_clips
from qd.builtin.codec_quality import measure
from qd.metrics.formatting import markdown_table
from qd.models.codecs.codec import FrameCodec
from qd.modules.embedder import CodecRoundTrip

SECONDS = 4
COLUMNS = ("codec", "frames/s", "codebooks", "tokens a clip", "bit/s", "spectral loss", "log-mel L1", "genre", "lead")


def table(folders: list[Path], world: int, train_clips: int, test_clips: int) -> str:
    """Returns the table, Markdown; the first row is the audio without a codec."""
    train, test = clean_clips("listener_train", train_clips, world), clean_clips("listener_test", test_clips, world)
    audio = np.stack([c.audio for c in test])
    rows = [["none", *[""] * 6, *_shown(accuracies(train, test, audio))]]
    for folder in folders:
        codec = FrameCodec.from_pretrained(folder)
        decoded = torch.cat([CodecRoundTrip(codec)(batch) for batch in torch.from_numpy(audio).split(16)])
        quality = measure(codec, 32, world=world)
        tokens = codec.frame_rate * codec.codebooks
        bits = tokens * np.log2(codec.codebook_size)
        rows.append([
            folder.parents[1].name, f"{codec.frame_rate:g}", f"{codec.codebooks} × {codec.codebook_size}",
            f"{SECONDS * tokens:.0f}", f"{bits:.0f}", f"{quality['spectral']:.3f}", f"{quality['log_mel_l1']:.3f}",
            *_shown(accuracies(train, test, decoded.numpy())),
        ])  # fmt: skip
    return markdown_table(COLUMNS, rows)


def _shown(found: dict[str, tuple[float, float]]) -> list[str]:
    return [f"{accuracy:.2f} (chance {chance:.2f})" for accuracy, chance in found.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders of codecs: asset of the stage `codec`")
    parser.add_argument("--world", type=int, default=2, help="edition of the built-in world (default: %(default)s)")
    parser.add_argument("--train-clips", type=int, default=6000, help="clips for the listener (default: %(default)s)")
    parser.add_argument("--test-clips", type=int, default=1500, help="test clips (default: %(default)s)")
    options = parser.parse_args()
    print(table(options.folders, options.world, options.train_clips, options.test_clips))


if __name__ == "__main__":
    main()
