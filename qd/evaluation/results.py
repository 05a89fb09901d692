"""A results file and the folders next to it: ``per_prompt/<key>.npz``, ``audio/<key>/prompt-1-sample-1.flac``."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from qd.audio.files import write_audio
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import PointsFile
from qd.runs.atomic import atomic_folder


class NotMeasuredError(Exception):
    """The results lack points that a figure, a table or a claim needs; the message says which."""


PER_PROMPT = "per_prompt"
AUDIO = "audio"
_CLIP = re.compile(r"prompt-(\d+)(?:-sample-(\d+))?\.flac")


class Results:
    """Measured points, their values for each prompt, and their audio.

    Files are named by the point's key, so that a measurement is found again even after a model was renamed. The audio
    is written first, then the values, then the point: where the values exist, only the point can be missing.

    Args:
        file: Results file, ``points.jsonl``.
    """

    def __init__(self, file: str | Path) -> None:
        self.points = PointsFile(file)
        self.folder = Path(file).parent

    def per_prompt(self, key: str) -> Path:
        """File of the values for each prompt; see :class:`~qd.evaluation.measurement.Measurement`."""
        return self.folder / PER_PROMPT / f"{key}.npz"

    def audio(self, key: str) -> Path:
        """Folder of the saved clips."""
        return self.folder / AUDIO / key

    def clips(self, key: str) -> list[list[Path]]:
        """Returns the saved clips of each prompt, in the order of prompts and samples.

        Earlier versions saved one clip a prompt, ``prompt-1.flac``.
        """
        clips: dict[int, dict[int, Path]] = {}
        for path in self.audio(key).glob("*.flac"):
            if name := _CLIP.fullmatch(path.name):
                clips.setdefault(int(name[1]), {})[int(name[2] or 1)] = path
        return [[samples[number] for number in sorted(samples)] for _, samples in sorted(clips.items())]

    def recall(self, key: str, fad_reference: str = "") -> Measurement | None:
        """Returns the saved measurement; None if there is none, or none with a distance to ``fad_reference``."""
        if not self.per_prompt(key).is_file():
            return None
        saved = Measurement.load(self.per_prompt(key))
        return saved if not fad_reference or (saved.fad and saved.fad.reference == fad_reference) else None

    def save(self, key: str, measurement: Measurement) -> None:
        """Writes the audio and the values of a measurement."""
        if len(measurement.audio):
            with atomic_folder(self.audio(key), replace=True) as folder:
                for prompt, clips in enumerate(measurement.audio, start=1):
                    for sample, clip in enumerate(clips, start=1):
                        name = f"prompt-{prompt}-sample-{sample}.flac"
                        write_audio(folder / name, clip, measurement.sample_rate)
        else:
            shutil.rmtree(self.audio(key), ignore_errors=True)
        replace(measurement, audio=measurement.audio[:0]).save(self.per_prompt(key))
