"""Runs and sampling that do not fit into memory are refused, with what is needed, what is free and what to lower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import qd.modules.budget.memory
from qd.cli.main import main
from qd.config.train import TrainConfig
from qd.models.musicgen import MusicGen
from qd.models.sampling.cached_decoder import CachedDecoder
from qd.models.sampling.sampler import Sampler
from qd.modules.budget.memory import (
    GIB,
    check_memory,
    check_sampling_memory,
    free_bytes,
    needed_bytes,
    rollout_bytes,
)
from qd.modules.budget.size import run_size, sampling_size
from tests.modules.tiny_runs import build

Config = Callable[..., TrainConfig]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_measurement_that_does_not_fit_is_refused_with_the_advice_to_lower_its_rows(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("evaluation.n_prompts=100", "evaluation.n_samples=20", "evaluation.eval_batch_size=2000")
    module = build(config)
    size = run_size(module, config)
    least = sum(needed_bytes(size).values())
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: least)
    check_memory(module, config, GPU)
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: least - 1)
    with pytest.raises(ValueError, match=r"first measurement 0\.0.*evaluation\.eval_batch_size=1000") as caught:
        check_memory(module, config, GPU)
    assert "micro_batch" not in str(caught.value) and "gradient_checkpointing" not in str(caught.value)
    check_memory(module, tiny_config("evaluation.eval_batch_size=1000"), GPU)


def test_a_run_that_does_not_fit_is_refused_with_needed_and_free_memory(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    module = build(config)
    for free in (None, 10 * GIB):
        monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device, free=free: free)
        check_memory(module, config, GPU)
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ValueError) as caught:
        check_memory(module, config, GPU)
    message = str(caught.value)
    assert "cuda has 0.0 GiB free" in message and "the run needs about" in message
    for advice in (
        "data.micro_batch_size=8",
        "model.gradient_checkpointing=true",
        "model.lora",
        "model.dtype=bfloat16",
    ):
        assert advice in message
    assert "weights" in message
    assert "fsdp" not in message  # on one device
    with pytest.raises(ValueError, match=r"trainer\.strategy=fsdp"):
        check_memory(module, tiny_config("trainer.devices=2", "data.batch_size=32"), GPU)
    with pytest.raises(ValueError) as caught:
        check_memory(module, config, CPU)
    assert "weights " not in str(caught.value).split("(")[1]  # these are in memory already


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guided", [False, True])
def test_the_formula_gives_the_cache_of_the_sampler(
    tiny_model: Path, guided: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    music, caches = MusicGen.load(tiny_model, dtype), []

    class RecordingDecoder(CachedDecoder):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            caches.append(sum(t.nbytes for layer in self.layers for t in (layer.keys, layer.values)))

    monkeypatch.setattr("qd.models.sampling.stepwise_loop.CachedDecoder", RecordingDecoder)
    monkeypatch.setattr("qd.models.sampling.sampler.runs_compiled", lambda lm: False)
    condition, scale = music.condition(["calm piano"]).repeat_interleave(3), 3.0 if guided else 1.0
    Sampler(music.lm).sample(condition, music.frames(0.32), greedy=True, guidance_scale=scale)
    assert caches == [rollout_bytes(sampling_size(music, 3, 0.32, guided))["cache"]]


def test_sampling_that_does_not_fit_is_refused_with_its_parts(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    music, options = MusicGen.load(tiny_model), {"rows": 3, "seconds": 0.32, "lower": ["n=1"]}
    check_sampling_memory(music, CPU, **options, guided=True)  # with the memory that is actually free
    weights = sum(p.numel() * 4 for p in music.parameters())
    cache = rollout_bytes(sampling_size(music, 3, 0.32, False))["cache"]
    needed = {(GPU, False): weights + cache, (GPU, True): weights + 2 * cache, (CPU, True): 2 * cache}
    for (device, guided), least in needed.items():
        monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device, free=least: free)
        check_sampling_memory(music, device, **options, guided=guided)
        monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device, free=least - 1: free)
        with pytest.raises(ValueError) as caught:
            check_sampling_memory(music, device, **options, guided=guided)
        message = str(caught.value)
        assert f"{device} has 0.0 GiB free" in message and "3 clips of 0.32 s" in message
        assert ("weights 0.0" in message) == (device == GPU) and "cache of keys and values 0.0" in message
        assert message.endswith("n=1; no guidance; a smaller model" if guided else "n=1; a smaller model")


@pytest.mark.parametrize(
    ("command", "lower"),
    [
        ("sample --prompt=x --n=6 --guidance=3", "n=3; a shorter seconds; dtype=bfloat16; no guidance"),
        ("sample --prompt=x --n=1 --dtype=bfloat16", "a shorter seconds; a smaller model"),
        (
            "evaluate --guidance=3 eval_batch_size=4",
            "eval_batch_size=2; a shorter seconds; no guidance; a smaller model",
        ),
        (
            "evaluate n_prompts=2 n_samples=3 eval_batch_size=4000",
            "eval_batch_size=3; a shorter seconds; a smaller model",
        ),
        ("sweep", "eval_batch_size=16; a shorter seconds; no guidance; a smaller model"),
        ("scorer-ranges", "a shorter seconds; no guidance; a smaller model"),
        ("fad --guidance=3", "a shorter seconds; no guidance; a smaller model"),
    ],
)
def test_commands_that_sample_are_refused_before_they_sample(
    command: str,
    lower: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *options = command.split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(Sampler, "sample", None)
    series = f"series: [{{name: guided, guidance: {{model: {tiny_model}, scales: [1, 3]}}}}]"
    Path("points.yaml").write_text(series)
    model = ["--config=points.yaml"] if name == "sweep" else [f"--model={tiny_model}"]
    assert main([name, *model, "--device=cpu", *options]) == 2
    errors = capsys.readouterr().err
    assert "cache of keys and values 0.0" in errors and lower in errors


def test_this_machine_has_free_memory() -> None:
    free = free_bytes(CPU)
    assert free is None or free > 2**20
    assert free_bytes(torch.device("mps")) is None
