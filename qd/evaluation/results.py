"""A results file and what lies beside it: ``per_prompt/<key>.npz`` and ``audio/<key>/prompt-1-sample-1.flac`` …"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from qd.audio.files import write_audio
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import PointsFile


class NotMeasuredError(Exception):
    """The results lack what a figure, a table or a claim is made of; the message says what."""


PER_PROMPT = "per_prompt"
AUDIO = "audio"
_CLIP = re.compile(r"prompt-(\d+)(?:-sample-(\d+))?\.flac")


class Results:
    """Measured points, the values behind each, and what it sounds like.

    All is named by the point's key, so that a measurement is found again whatever the models are called by now. The
    values are written after the audio and before the point: where they are, all but the point is.

    Args:
        file: the results file, ``points.jsonl``.
    """

    def __init__(self, file: str | Path) -> None:
        self.points = PointsFile(file)
        self.folder = Path(file).parent

    def per_prompt(self, key: str) -> Path:
        """Values for each prompt, see :class:`~qd.evaluation.measurement.Measurement`."""
        return self.folder / PER_PROMPT / f"{key}.npz"

    def audio(self, key: str) -> Path:
        """Folder of the first samples of each of the first prompts."""
        return self.folder / AUDIO / key

    def clips(self, key: str) -> list[list[Path]]:
        """Of each of the first prompts the audio of its first samples, in their order; none where none was kept.

        Earlier versions kept one of each, ``prompt-1.flac``.
        """
        found: dict[int, dict[int, Path]] = {}
        for path in self.audio(key).glob("*.flac"):
            if name := _CLIP.fullmatch(path.name):
                found.setdefault(int(name[1]), {})[int(name[2] or 1)] = path
        return [[clips[sample] for sample in sorted(clips)] for _, clips in sorted(found.items())]

    def recall(self, key: str, fad_reference: str = "") -> Measurement | None:
        """The measurement of that key; None if there is none, or none with the Fréchet audio distance that is asked."""
        if not self.per_prompt(key).is_file():
            return None
        kept = Measurement.load(self.per_prompt(key))
        return kept if not fad_reference or (kept.fad and kept.fad.reference == fad_reference) else None

    def keep(self, key: str, measurement: Measurement) -> None:
        """Writes what lies beside the point."""
        folder, unfinished = self.audio(key), self.audio(f"unfinished-{key}")
        shutil.rmtree(unfinished, ignore_errors=True)
        for prompt, clips in enumerate(measurement.audio, start=1):
            for sample, clip in enumerate(clips, start=1):
                write_audio(unfinished / f"prompt-{prompt}-sample-{sample}.flac", clip, measurement.sample_rate)
        shutil.rmtree(folder, ignore_errors=True)
        if unfinished.is_dir():
            unfinished.rename(folder)
        replace(measurement, audio=measurement.audio[:0]).save(self.per_prompt(key))
