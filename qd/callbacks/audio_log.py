"""What the policy sounds like, as it is trained."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from qd.audio_io import log_mel
from qd.callbacks.pareto_log import MeasurementListener
from qd.evaluation.measurement import Measurement

RANGE_DB = 80.0


class AudioLog(MeasurementListener):
    """Of each measurement, the kept samples as TensorBoard audio and one figure of their spectrograms."""

    def on_measurement(self, writer: SummaryWriter | None, step: int, measurement: Measurement) -> None:
        if writer is None or len(measurement.audio) == 0:
            return
        rate = measurement.sample_rate
        for number, (clip, prompt) in enumerate(zip(measurement.audio, measurement.prompts, strict=False)):
            writer.add_audio(f"samples/{number} {prompt}", clip[None].clip(-1.0, 1.0), step, sample_rate=rate)
        writer.add_figure("spectrograms", spectrograms(measurement), step, close=False)
        writer.flush()


def spectrograms(measurement: Measurement) -> Figure:
    """One log-mel panel for each kept sample, on one scale."""
    mels = [log_mel(clip, measurement.sample_rate) for clip in measurement.audio]
    loudest = max(mel.max() for mel in mels)
    figure = Figure(figsize=(8.0, 1.8 * len(mels)), layout="constrained")
    for axes, mel, prompt in zip(np.ravel(figure.subplots(len(mels))), mels, measurement.prompts, strict=False):
        seconds = measurement.audio.shape[1] / measurement.sample_rate
        extent, floor = (0.0, seconds, 0.0, float(len(mel))), loudest - RANGE_DB
        axes.imshow(mel, origin="lower", aspect="auto", extent=extent, vmin=floor, vmax=loudest, cmap="magma")
        axes.set_title(prompt, fontsize=8)
        axes.set_ylabel("mel band", fontsize=7)
    axes.set_xlabel("seconds")
    return figure
