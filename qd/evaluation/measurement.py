"""The result of a measurement: a value for each prompt, and the audio of a few."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qd.evaluation.columns import FACETS, METRICS, OPTIONAL_METRICS
from qd.metrics.bootstrap import Interval, bootstrap_interval, defined_interval
from qd.runs.atomic import atomic_write


class Fad(NamedTuple):
    """Fréchet and kernel audio distance to a reference; see :mod:`qd.evaluation.fad_reference`.

    Attributes:
        distance: Fréchet audio distance.
        infinite: FAD∞, extrapolated to infinitely many samples.
        reference: Description of the reference recordings and the embedder.
        kernel: Kernel audio distance; None in files of earlier versions.
    """

    distance: float
    infinite: float
    reference: str
    kernel: float | None = None


@dataclass(frozen=True)
class Measurement:
    """The measurement of a policy.

    Attributes:
        prompts: P texts.
        per_prompt: Value for each prompt, ``(prompts,)``, of each of :data:`~qd.evaluation.columns.METRICS` and any of
            :data:`~qd.evaluation.columns.OPTIONAL_METRICS`; NaN for a prompt that a metric leaves out.
        cross_prompt_bound: Mean dissimilarity of two generations of different prompts (the upper bound of Fig. 2).
        audio: First clips of each of the first prompts, ``(saved prompts, clips, samples)``.
        sample_rate: Sample rate of the audio, in Hz.
        seconds: Wall time of the measurement.
        fad: Distance of all samples to the reference; None if not measured.
        sampling_seconds: Wall time of sampling and decoding; NaN in files of earlier versions.
    """

    prompts: tuple[str, ...]
    per_prompt: dict[str, np.ndarray]
    cross_prompt_bound: float
    audio: np.ndarray
    sample_rate: int
    seconds: float
    fad: Fad | None = None
    sampling_seconds: float = math.nan

    @property
    def has_facets(self) -> bool:
        """Whether the musical facets were measured."""
        return self.per_prompt.keys() >= {*FACETS}

    def intervals(self) -> dict[str, Interval]:
        """Returns means over prompts with 95 % bootstrap intervals."""
        optional = [name for name in OPTIONAL_METRICS if name in self.per_prompt]
        intervals = {name: bootstrap_interval(self.per_prompt[name]) for name in METRICS}
        return intervals | {name: defined_interval(self.per_prompt[name]) for name in optional}

    def save(self, path: Path) -> None:
        """Writes a compressed npz file without pickles; the audio in half precision."""
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                prompts=np.array(self.prompts),
                cross_prompt_bound=self.cross_prompt_bound,
                audio=self.audio.astype(np.float16),
                sample_rate=self.sample_rate,
                seconds=self.seconds,
                sampling_seconds=self.sampling_seconds,
                **self._distances(),
                **self.per_prompt,
            )

    def _distances(self) -> dict[str, float | str | tuple[float, ...]]:
        if self.fad is None:
            return {}
        distances = {"fad": self.fad[:2], "fad_reference": self.fad.reference}
        return distances if self.fad.kernel is None else distances | {"kad": self.fad.kernel}

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """Reads a file of :meth:`save`; earlier versions saved one clip a prompt, ``(saved prompts, samples)``.

        Raises:
            ValueError: The file is damaged; the message says how to continue.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls._of(file)
        # What numpy and zipfile raise depends on which byte is wrong.
        except (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} cannot be read as a measurement ({error}); restore it from a copy, or remove it and the lines "
                f"with the key {path.stem} from the results file next to it: they are then measured again"
            ) from error

    @classmethod
    def _of(cls, file: Mapping[str, np.ndarray]) -> Measurement:
        audio = file["audio"].astype(np.float32)
        optional = [name for name in OPTIONAL_METRICS if name in file]
        kernel = float(file["kad"]) if "kad" in file else None
        return cls(
            prompts=tuple(file["prompts"].tolist()),
            per_prompt={name: file[name] for name in (*METRICS, *optional)},
            cross_prompt_bound=float(file["cross_prompt_bound"]),
            audio=audio if audio.ndim == 3 else audio[:, None],
            sample_rate=int(file["sample_rate"]),
            seconds=float(file["seconds"]),
            fad=Fad(*file["fad"].tolist(), str(file["fad_reference"]), kernel) if "fad" in file else None,
            sampling_seconds=float(file["sampling_seconds"]) if "sampling_seconds" in file else math.nan,
        )
