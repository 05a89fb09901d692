"""The formula of a run's memory beside what autograd keeps, and what is said where it does not fit."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import qd.modules.budget.memory
from qd.cli.main import main
from qd.config.train import TrainConfig
from qd.models.condition import Condition
from qd.models.embedders.loading import load_embedder
from qd.models.language_model import LanguageModel
from qd.models.musicgen import MusicGen
from qd.models.sampling.cached_decoder import CachedDecoder
from qd.models.sampling.sampler import Sampler
from qd.modules.budget.memory import (
    CHECKPOINTED_BYTES,
    GIB,
    KEPT_BYTES,
    SCORED_COPIES,
    check_memory,
    check_sampling_memory,
    first_measurement_bytes,
    free_bytes,
    measurement_bytes,
    needed_bytes,
    rollout_bytes,
    update_bytes,
)
from qd.modules.budget.size import RunSize, run_size, sampling_size
from qd.modules.distillation import DiversityDistillation
from qd.modules.policy import load_policy
from qd.objectives.baselines import build_baseline

Config = Callable[..., TrainConfig]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def build(config: TrainConfig) -> DiversityDistillation:
    return DiversityDistillation(
        load_policy(config.model),
        load_embedder(config.reward.embedder),
        build_baseline("moving_average", decay=0.9, feature_width=24),
        config,
    )


def kept_bytes(layers: int, precision: str, checkpointing: bool) -> tuple[int, int]:
    """What a pass over 4 × 50 tokens keeps of a decoder of width 32: activations, and rounded copies of matrices."""
    build_model = runpy.run_path(str(Path(__file__).parents[2] / "real_checkpoint.py"))["build_real_model"]
    lm = LanguageModel(build_model(layers=layers).decoder)
    if checkpointing:
        lm.checkpoint_layers()
    delayed, kept = torch.zeros(4, lm.codebooks, 50, dtype=torch.long), {}
    weights = {p.untyped_storage().data_ptr() for p in lm.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        hidden = lm.hidden_states(delayed, Condition.null(4, lm.decoder.config.hidden_size))
    of_weights = [t for t in kept.values() if t.ndim == 2 and t.shape[0] in (32, 128) and t.shape[1] in (32, 128)]
    rounded = sum(t.untyped_storage().nbytes() for t in of_weights if t.dtype == torch.bfloat16)
    whole = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in weights)
    del hidden
    return whole - rounded, rounded


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_layer_keeps_as_many_bytes_as_the_formula_says(precision: str) -> None:
    """The difference between four layers and two, of a decoder whose feed-forward layer is four times as wide."""
    for checkpointing, expected in ((False, KEPT_BYTES[precision]), (True, CHECKPOINTED_BYTES)):
        (two, rounded), (four, rounded_) = (kept_bytes(layers, precision, checkpointing) for layers in (2, 4))
        assert (four - two) / 2 / (4 * 50 * 32) == pytest.approx(expected, rel=0.06)
        if not checkpointing:
            matrices = 2 * 14 * 32**2  # of two layers; those of the text need no gradient without a projection
            assert rounded_ - rounded == (2 * matrices if precision == "bf16-mixed" else 0)


def test_the_parts_of_the_tiny_run(tiny_config: Config) -> None:
    whole, lora = tiny_config(), tiny_config("model.lora={rank: 2}")
    module, adapted = build(whole), build(lora)
    trained = sum(p.numel() for p in module.music.lm.parameters())
    adapters = sum(p.numel() for p in adapted.music.lm.parameters() if p.requires_grad)
    size, small = run_size(module, whole), run_size(adapted, lora)
    parts, less = needed_bytes(size), needed_bytes(small)
    assert parts["optimiser"] == 12 * trained and less["optimiser"] == 12 * adapters
    assert parts["weights"] == sum(p.numel() * p.element_size() for p in module.parameters())
    assert parts["weights"] - less["weights"] == 4 * (trained - adapters)  # no second copy of the base
    layers = adapted.music.lm.plain.decoder.model.decoder.layers
    matrices = sum(layer.weight.numel() for layer in layers.modules() if isinstance(layer, torch.nn.Linear))
    assert small.adapted == matrices and size.adapted == 0
    assert rollout_bytes(small)["put aside"] == 4 * matrices
    checkpointed = run_size(module, tiny_config("model.gradient_checkpointing=true"))
    assert update_bytes(checkpointed)["activations"] <= 1.06 * update_bytes(size)["activations"]  # of one layer
    half = run_size(module, tiny_config("data.batch_size=8", "data.micro_batch_size=8"))
    assert 2 * update_bytes(half)["activations"] == update_bytes(size)["activations"]
    assert update_bytes(size)["rounded"] == 0 < update_bytes(replace(size, precision="bf16-mixed"))["rounded"]


def test_fsdp_shares_weights_gradients_and_moments_out_and_gathers_the_student_for_its_rollout(
    tiny_config: Config,
) -> None:
    module = build(tiny_config())
    alone = run_size(module, tiny_config())
    four = run_size(module, tiny_config("trainer.devices=4", "trainer.strategy=fsdp", "data.batch_size=64"))
    assert four == replace(alone, shards=4)
    frozen = alone.frozen_bytes
    assert 0 < frozen == sum(p.numel() * 4 for p in module.parameters()) - 2 * 4 * alone.student
    assert needed_bytes(four)["weights"] - frozen == (needed_bytes(alone)["weights"] - frozen) / 4
    assert needed_bytes(four)["optimiser"] == needed_bytes(alone)["optimiser"] / 4
    gathered = sum(rollout_bytes(four).values()) - sum(rollout_bytes(alone).values())
    assert gathered == 4 * alone.student and update_bytes(four) == update_bytes(alone)


def test_logits_are_counted_as_they_are_scored_in_chunks() -> None:
    """Of a MusicGen of 10 s four sequences are scored at once, whatever the micro-batch; of a longer one each alone."""
    size = RunSize(1, 8, 4, 2048, student=0, rows=32, steps=503)
    sequence = 4 * 503 * 2048
    assert update_bytes(size)["logits"] == 4 * SCORED_COPIES * 4 * sequence
    assert update_bytes(replace(size, rows=2))["logits"] == 4 * SCORED_COPIES * 2 * sequence
    assert update_bytes(replace(size, steps=5030))["logits"] == 4 * SCORED_COPIES * 10 * sequence


def test_a_measurement_of_many_rows_needs_more_than_a_step(tiny_config: Config) -> None:
    """A guided teacher decodes two rows a sequence, and has no optimiser beside it; all ranks share the prompts."""
    settings = ["evaluation.n_prompts=50", "evaluation.n_samples=4", "trainer.devices=2", "data.batch_size=32"]
    config = tiny_config(*settings, "evaluation.eval_batch_size=200")
    module = build(config)
    size = run_size(module, config)
    assert (size.measured, size.guided) == (100, True)
    assert run_size(module, tiny_config(*settings, "evaluation.eval_batch_size=7")).measured == 7
    row = size.steps * 2 * size.width * 4
    assert measurement_bytes(size)["cache"] == 100 * row == first_measurement_bytes(size)["cache"] / 2
    plain = replace(size, guided=False)
    assert first_measurement_bytes(plain)["cache"] == 100 * row
    half = replace(size, teacher_bytes=size.teacher_bytes // 2)
    assert first_measurement_bytes(half)["cache"] == 100 * row
    many = replace(size, measured=10_000)
    assert needed_bytes(many) == {
        "weights": 4 * size.student + size.teacher_bytes + size.frozen_bytes,
        "first measurement": 20_000 * row,
    }
    unguided = needed_bytes(replace(many, guided=False))
    assert unguided["measurement"] == 10_000 * row and unguided["optimiser"] == 12 * size.trained
    assert "micro-batch" in needed_bytes(size)
    shared = replace(many, shards=4)
    assert first_measurement_bytes(shared)["gathered"] == size.teacher_bytes
    assert measurement_bytes(shared)["gathered"] == 4 * size.student


def test_adapters_are_merged_while_the_student_is_measured(tiny_config: Config) -> None:
    config = tiny_config("model.lora={rank: 2}")
    size = run_size(build(config), config)
    assert measurement_bytes(size)["put aside"] == 4 * size.adapted > 0
    assert first_measurement_bytes(size)["cache"] == 2 * measurement_bytes(size)["cache"]  # the base is float32


def test_a_measurement_that_does_not_fit_is_told_with_its_rows(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("evaluation.n_prompts=100", "evaluation.n_samples=20", "evaluation.eval_batch_size=2000")
    module = build(config)
    size = run_size(module, config)
    least = sum(needed_bytes(size).values())
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: least)
    check_memory(module, config, GPU)
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: least - 1)
    with pytest.raises(
        ValueError, match=r"first measurement 0\.0\); to need less: evaluation\.eval_batch_size=1000; "
    ) as told:
        check_memory(module, config, GPU)
    assert "micro_batch" not in str(told.value) and "gradient_checkpointing" not in str(told.value)
    check_memory(module, tiny_config("evaluation.eval_batch_size=1000"), GPU)


def test_what_does_not_fit_is_told_beside_what_is_free(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    module = build(config)
    for free in (None, 10 * GIB):
        monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device, free=free: free)
        check_memory(module, config, GPU)
    monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ValueError) as caught:
        check_memory(module, config, GPU)
    told = str(caught.value)
    assert "cuda has 0.0 GiB free, and the run needs about" in told
    for advice in (
        "data.micro_batch_size=8",
        "model.gradient_checkpointing=true",
        "model.lora",
        "model.dtype=bfloat16",
    ):
        assert advice in told
    assert "weights" in told
    assert "fsdp" not in told  # on one device
    with pytest.raises(ValueError, match=r"to need less: .*trainer\.strategy=fsdp"):
        check_memory(module, tiny_config("trainer.devices=2", "data.batch_size=32"), GPU)
    with pytest.raises(ValueError) as caught:
        check_memory(module, config, CPU)
    assert "weights " not in str(caught.value).split("(")[1]  # they are in memory already


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guided", [False, True])
def test_the_cache_of_sampling_is_that_of_the_sampler(
    tiny_model: Path, guided: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    music, caches = MusicGen.load(tiny_model, dtype), []

    class Kept(CachedDecoder):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            caches.append(sum(t.nbytes for layer in self.layers for t in (layer.keys, layer.values)))

    monkeypatch.setattr("qd.models.sampling.stepwise_loop.CachedDecoder", Kept)
    monkeypatch.setattr("qd.models.sampling.sampler.runs_compiled", lambda lm: False)
    condition, scale = music.condition(["calm piano"]).repeat_interleave(3), 3.0 if guided else 1.0
    Sampler(music.lm).sample(condition, music.frames(0.32), greedy=True, guidance_scale=scale)
    assert caches == [rollout_bytes(sampling_size(music, 3, 0.32, guided))["cache"]]


def test_sampling_that_does_not_fit_is_told_by_its_parts(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    music, asked = MusicGen.load(tiny_model), {"rows": 3, "seconds": 0.32, "lower": ["n=1"]}
    check_sampling_memory(music, CPU, **asked, guided=True)  # what is really free
    weights = sum(p.numel() * 4 for p in music.parameters())
    cache = rollout_bytes(sampling_size(music, 3, 0.32, False))["cache"]
    needed = {(GPU, False): weights + cache, (GPU, True): weights + 2 * cache, (CPU, True): 2 * cache}
    for (device, guided), least in needed.items():
        monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device, free=least: free)
        check_sampling_memory(music, device, **asked, guided=guided)
        monkeypatch.setattr(qd.modules.budget.memory, "free_bytes", lambda device, free=least - 1: free)
        with pytest.raises(ValueError) as caught:
            check_sampling_memory(music, device, **asked, guided=guided)
        told = str(caught.value)
        assert f"{device} has 0.0 GiB free, and sampling 3 clips of 0.32 s at once needs about 0.0 GiB (" in told
        assert ("weights 0.0" in told) == (device == GPU) and "cache of keys and values 0.0" in told
        advice = "n=1; no guidance; a smaller model" if guided else "n=1; a smaller model"
        assert told.endswith(f"to need less: {advice}")


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
def test_each_command_that_samples_is_refused_before_it_does(
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
    told = capsys.readouterr().err
    assert "(cache of keys and values 0.0); to need less: " in told and lower in told


def test_this_machine_has_some_memory_free() -> None:
    free = free_bytes(CPU)
    assert free is None or free > 2**20
    assert free_bytes(torch.device("mps")) is None
