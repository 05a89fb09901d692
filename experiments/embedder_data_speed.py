"""Clips a second of everything that an embedder's training waits for: data, augmentation, codec, model.

    python experiments/embedder_data_speed.py [--config default] [--clips 64] [--repeats 5] [--device auto]

The data streams are those of one loader process; training has ``data.workers`` of them beside the rest. The folder is
a temporary one of FLAC files at 44.1 kHz, half a minute each, written here. The codec's row is of clips that pass it,
``codec.share`` of a batch. Each row is the median of the repeats after one that is not counted; the last column is its
rate over the model's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import load_config
from qd.data.augmentation import Augmentation
from qd.data.library import open_recordings
from qd.data.recordings import BuiltinRecordings, PairStream, Recordings
from qd.data.world.timbres import SAMPLE_RATE
from qd.metrics.formatting import format_duration
from qd.models.codecs.codec import load_codec
from qd.models.embedders.audio_vit import AudioViT
from qd.modules.embedder import CodecRoundTrip
from qd.objectives.triplet import semi_hard_triplet
from qd.runs.devices import fast_precision, resolve_device

FILES, FILE_SECONDS, FILE_RATE = 20, 30, 44_100


def seconds(
    work: Callable[[], object], repeats: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median duration of ``work`` after a first time."""
    durations = []
    for _ in range(repeats + 1):
        start = format_duration()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(format_duration() - start)
    return median(durations[1:])


def write_files(folder: Path) -> None:
    """Noise that changes its colour and level, which FLAC has to work for."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        noise = rng.standard_normal(FILE_SECONDS * FILE_RATE).cumsum()
        noise -= np.convolve(noise, np.ones(256) / 256, "same")
        soundfile.write(folder / f"{number}.flac", 0.5 * noise / np.abs(noise).max(), FILE_RATE, subtype="PCM_16")


def next_batch(recordings: Recordings, pairs: int) -> Callable[[], object]:
    """Work of a loader: one batch more, each time other recordings."""
    stream = iter(PairStream(recordings, pairs))
    return lambda: list(islice(stream, 1))


def streams(config: EmbedderTrainConfig, seconds_in: float, folder: Path) -> Iterator[tuple[str, Recordings]]:
    """Names and recordings; the files are written to ``folder``."""
    write_files(folder)
    yield "data, built-in world", BuiltinRecordings("embedder", 0, seconds_in)
    yield (
        "data, folder of FLAC files",
        open_recordings(
            str(folder),
            sample_rate=config.model.sample_rate,
            seconds=seconds_in,
            seed=0,
            split="train",
            validation_share=0.3,
        ),
    )


def training_step(config: EmbedderTrainConfig, audio: torch.Tensor) -> Callable[[], None]:
    """Forward and backward passes with the loss, in the precision that training would use."""
    model = AudioViT(config.model).to(audio.device)
    half = fast_precision(audio.device) == "bf16-mixed"
    labels = torch.arange(len(audio) // 2, device=audio.device).repeat_interleave(2)

    def step() -> None:
        model.zero_grad()
        with torch.autocast(audio.device.type, torch.bfloat16, enabled=half):
            embeddings = model(audio)
        semi_hard_triplet(embeddings.float(), labels, config.objective.margin).loss.backward()

    return step


def table(config: EmbedderTrainConfig, clips: int, repeats: int, device: torch.device) -> None:
    """Prints one row a part, in the order of a training step."""
    augmentation = Augmentation(config.augmentation, config.model.sample_rate)
    samples = config.model.clip_samples
    needed = augmentation.needed_samples(samples)
    durations: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, recordings in streams(config, needed / config.model.sample_rate, Path(folder)):
            durations[name] = seconds(next_batch(recordings, clips // 2), repeats, torch.device("cpu"))
    world = BuiltinRecordings("embedder", 1, needed / SAMPLE_RATE)
    audio = torch.from_numpy(np.concatenate([world.pair(index) for index in range(clips // 2)])).to(device)
    generator = torch.Generator(device).manual_seed(0)
    durations["augmentation"] = seconds(lambda: augmentation(audio, samples, generator), repeats, device)
    audio = audio[:, :samples].contiguous()
    round_trip = CodecRoundTrip(load_codec(config.codec.model or "base"))
    durations["codec round trip"] = seconds(lambda: round_trip(audio), repeats, device)
    durations["model, forward and backward"] = seconds(training_step(config, audio), repeats, device)
    of_model = durations["model, forward and backward"]
    print("| part | clips/s | × the model's |\n|---|---|---|")
    for name, duration in durations.items():
        print(f"| {name} | {clips / duration:,.0f} | {of_model / duration:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="default", help="of configs/embedder, or a path (default default)")
    parser.add_argument("--clips", type=int, default=64, help="a batch, an even number (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="of each part (default 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    options = parser.parse_args()
    device = resolve_device(options.device)
    config = load_config(EmbedderTrainConfig, "embedder", options.config, [])
    threads = torch.get_num_threads()
    print(f"{options.clips} clips of {config.model.clip_seconds:g} s on {device.type}, {threads} threads\n")
    table(config, options.clips, options.repeats, device)


if __name__ == "__main__":
    main()
