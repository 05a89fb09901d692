"""How fast an embedder trains, beside what this device could do at best, and how long the paper's training would take.

    python experiments/embedder_floor.py [--config default] [--clips 64] [--repeats 5] [--device auto] [--threads N]
        [--cpu-time]

Measured: clips a second of the model, forward and backward with the loss, in the precision of training; the rate of one
large matrix product in that precision; the bandwidth of one large copy. The floor of a clip's time is the longer of

- its operations over the matrix rate: matrix products and attention, two operations a multiplication and addition;
- its bytes over the bandwidth: what the forward pass saves for the backward pass, written once and read once, and its
  share of the weights, read in both passes, and of their gradients, written once.

With ``--cpu-time`` all times are the processor's, not the clock's: what one thread would take on a core of its own, for
a machine where other programs are at work.

The last row is ``STEPS`` steps of ``BATCH`` clips at the measured rate: without the data, which loaders prepare beside
it, and without the second forward pass of a batch that is embedded in chunks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from embedder_data_speed import seconds, training_step
from torch.autograd.graph import saved_tensors_hooks

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import load_config
from qd.models.embedders.audio_vit import AudioViT, AudioViTConfig
from qd.runs.devices import fast_precision, resolve_device

STEPS, BATCH = 200_000, 3_840  # of the paper
Timer = Callable[[Callable[[], object]], float]
GIGA = 1e9


def operations(model: AudioViTConfig) -> int:
    """Of one clip, forward and backward: each product again for the gradient of each factor that has one."""
    frames, inner = model.frames, model.heads * model.head_dim
    mel = frames * (model.n_fft // 2 + 1) * model.n_mels
    embed = frames * model.n_mels * model.width
    linear = frames * model.width * (4 * inner + 2 * model.mlp_width)
    attention = 2 * frames**2 * inner
    projection = model.width * model.embedding_width
    return 2 * (mel + 2 * embed + 3 * model.layers * (linear + attention) + 3 * projection)


def bytes_moved(model: AudioViT, audio: torch.Tensor, half: bool) -> float:
    """Of one of these clips, forward and backward."""
    weights = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast(audio.device.type, torch.bfloat16, half):
        embeddings = model(audio)  # its graph holds what was saved: no address is given out twice
    del embeddings
    of_weights = 3 * sum(weight.nbytes for weight in model.parameters())
    return (2 * sum(kept.values()) + of_weights) / len(audio)


def matrix_rate(device: torch.device, half: bool, timer: Timer) -> float:
    """Operations a second of one large product."""
    size = 2048 if device.type == "cpu" else 8192
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16 if half else torch.float32)
    return 2 * size**3 / timer(lambda: matrix @ matrix)


def bandwidth(device: torch.device, timer: Timer) -> float:
    """Bytes a second, read and written, of one copy that no cache holds."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timer(lambda: target.copy_(source))


def rows(config: EmbedderTrainConfig, clips: int, device: torch.device, timer: Timer) -> list[tuple[str, str]]:
    """The table: a quantity and its value each."""
    half = fast_precision(device) == "bf16-mixed"
    audio = 0.1 * torch.randn(clips, config.model.clip_samples, device=device)
    rate = clips / timer(training_step(config, audio))
    work, moved = operations(config.model), bytes_moved(AudioViT(config.model).to(device), audio, half)
    products, copies = matrix_rate(device, half, timer), bandwidth(device, timer)
    floor = max(work / products, moved / copies)
    return [
        ("model, forward and backward", f"{rate:,.2f} clips/s"),
        ("operations a clip", f"{work / GIGA:,.2f} G"),
        ("matrix rate", f"{products / GIGA:,.0f} G/s"),
        ("at most, by operations", f"{products / work:,.2f} clips/s"),
        ("bytes a clip", f"{moved / GIGA:,.3f} G"),
        ("copy bandwidth", f"{copies / GIGA:,.1f} G/s"),
        ("at most, by bytes", f"{copies / moved:,.2f} clips/s"),
        ("measured, of what is possible", f"{rate * floor:.0%}"),
        (f"{STEPS:,} steps of {BATCH:,} clips", f"{STEPS * BATCH / rate / 86_400:,.1f} days"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="default", help="of configs/embedder, or a path (default default)")
    parser.add_argument("--clips", type=int, default=64, help="a batch, an even number (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--cpu-time", action="store_true", help="of the processor; for one thread on the CPU")
    options = parser.parse_args()
    if options.cpu_time:
        options.threads, options.device = 1, "cpu"
    if options.threads:
        torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    config = load_config(EmbedderTrainConfig, "embedder", options.config, [])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    clock = time.process_time if options.cpu_time else time.perf_counter
    timer = partial(seconds, repeats=options.repeats, device=device, clock=clock)
    how = f"{fast_precision(device)}, {name}, {clock.__name__}"
    print(f"{options.config}, {options.clips} clips on {device.type}, {how}\n")
    print("| quantity | value |\n|---|---|")
    for row in rows(config, options.clips, device, timer):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
