"""A results file and the folders next to it: ``per_prompt/<key>.npz``, ``audio/<key>/prompt-1-sample-1.flac``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qd.audio.files import write_audio
from qd.evaluation.measurement import Measurement
from qd.evaluation.points import Point, PointsFile
from qd.runs.atomic import atomic_folder


class NotMeasuredError(Exception):
    """The results lack points that a figure, a table or a claim needs; the message says which."""


OUT_OF_DATE = "Remove the lines that are out of date, or measure into another file"
"""How to repair a results file with two models where one is expected."""

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

    def recall(self, key: str, fad_reference: str = "", facets: bool = False) -> Measurement | None:
        """Returns the saved measurement.

        None if there is none, none with a distance to ``fad_reference``, or none with the required ``facets``.
        """
        if not self.per_prompt(key).is_file():
            return None
        saved = Measurement.load(self.per_prompt(key))
        if facets and not saved.has_facets:
            return None
        return saved if not fad_reference or (saved.fad and saved.fad.reference == fad_reference) else None

    def save(self, key: str, measurement: Measurement) -> None:
        """Writes the audio and the values of a measurement.

        Facets and the Fréchet audio distance that only an earlier measurement with this key has are kept.
        """
        if self.per_prompt(key).is_file():
            earlier = Measurement.load(self.per_prompt(key))
            values = {**earlier.per_prompt, **measurement.per_prompt}
            measurement = replace(measurement, per_prompt=values, fad=measurement.fad or earlier.fad)
        if len(measurement.audio):
            with atomic_folder(self.audio(key), replace=True) as folder:
                for prompt, clips in enumerate(measurement.audio, start=1):
                    for sample, clip in enumerate(clips, start=1):
                        name = f"prompt-{prompt}-sample-{sample}.flac"
                        write_audio(folder / name, clip, measurement.sample_rate)
        else:
            shutil.rmtree(self.audio(key), ignore_errors=True)
        replace(measurement, audio=measurement.audio[:0]).save(self.per_prompt(key))


def refuse_other_weights(file: str | Path, points: Sequence[Point]) -> None:
    """Checks that all points, which have one model name and one sampling, measure the same weights.

    Raises:
        ValueError: The points have several keys: the name stood for other weights before.
    """
    models: dict[str, str] = {}
    for point in points:
        models.setdefault(point.key, point.model)
    if len(models) > 1:
        listed = ", ".join(f"{key} of {model!r}" for key, model in sorted(models.items()))
        raise ValueError(
            f"{file} has {len(models)} measurements of one model with the same sampling and seed {points[0].seed}, but "
            f"different weights or prompts (keys {listed}): was it trained again under its old name? {OUT_OF_DATE}"
        )
