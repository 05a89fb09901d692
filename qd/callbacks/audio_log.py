"""Logs samples of the policy during training."""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter

from qd.audio.files import spectrogram_figure
from qd.callbacks.pareto_log import MeasurementListener
from qd.evaluation.measurement import Measurement


class AudioLog(MeasurementListener):
    """Logs the saved samples of each measurement as TensorBoard audio, with one figure of spectrograms.

    The figure shows the first sample of each prompt.
    """

    def on_measurement(self, writer: SummaryWriter | None, step: int, measurement: Measurement) -> None:
        if writer is None or len(measurement.audio) == 0:
            return
        rate = measurement.sample_rate
        for number, (clips, prompt) in enumerate(zip(measurement.audio, measurement.prompts, strict=False)):
            for sample, clip in enumerate(clips, start=1):
                tag = f"samples/{number} {prompt}" + (f" ({sample})" if sample > 1 else "")
                writer.add_audio(tag, clip[None].clip(-1.0, 1.0), step, sample_rate=rate)
        titles = measurement.prompts[: len(measurement.audio)]
        figure = spectrogram_figure(measurement.audio[:, 0], rate, titles)
        writer.add_figure("spectrograms", figure, step, close=False)
        writer.flush()
