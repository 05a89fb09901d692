"""Adapters: no second copy of the weights, an unchanged base, and equal results with merged and separate adapters."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import MusicgenForConditionalGeneration

from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.delay import delay
from qd.models.language_model import LanguageModel
from qd.models.lora import LAYERS, AdaptedLanguageModel
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler

PROMPTS = ["a slow jazz tune", "fast drums"]


def moved(lm: AdaptedLanguageModel, std: float = 0.3) -> AdaptedLanguageModel:
    """Gives the adapters non-zero weights; new adapters have no effect."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in lm.named_parameters():
        if "lora_B" in name:
            weight.data = std * torch.randn(weight.shape, generator=generator)
    return lm


@pytest.fixture
def adapted(real_checkpoint: Path) -> MusicGen:
    music = MusicGen.load(real_checkpoint)
    music.adapt(lambda lm: moved(AdaptedLanguageModel(lm, rank=4)))
    return music


@pytest.fixture
def base(real_checkpoint: Path) -> MusicGen:
    return MusicGen.load(real_checkpoint)


def logits(music: MusicGen, lm: LanguageModel) -> Tensor:
    shape = (2, lm.codebooks, 6)
    codes = torch.randint(lm.codebook_size, shape, generator=torch.Generator().manual_seed(0))
    return lm.logits(delay(codes, lm.pad, lm.channels)[0], music.condition(PROMPTS))


@torch.no_grad()
def test_new_adapters_have_no_effect(base: MusicGen, real_checkpoint: Path) -> None:
    expected = logits(base, base.lm)
    fresh = AdaptedLanguageModel(base.lm)
    assert torch.equal(logits(base, fresh), expected)
    other = MusicGen.load(real_checkpoint)
    first, second = fresh.state_dict(), AdaptedLanguageModel(other.lm).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)  # a function of the seed
    assert any("lora_A" in name and weight.any() for name, weight in first.items())


@torch.no_grad()
def test_the_teacher_is_the_base_and_no_weight_is_in_memory_twice(adapted: MusicGen, base: MusicGen) -> None:
    teacher = adapted.lm.frozen()
    assert torch.equal(logits(adapted, teacher), logits(base, base.lm))
    assert (logits(adapted, adapted.lm) - logits(base, base.lm)).abs().max() > 0.1
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in adapted.lm.parameters()}
    adapters = sum(p.numel() for p in adapted.lm.parameters() if p.requires_grad)
    assert sum(storages.values()) == 4 * (adapters + sum(p.numel() for p in base.lm.parameters()))
    assert {p.data_ptr() for p in teacher.parameters()} < {p.data_ptr() for p in adapted.lm.parameters()}
    assert not any(p.requires_grad for p in teacher.parameters())
    assert {name.split(".")[-3] for name, p in adapted.lm.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


@torch.no_grad()
def test_merging_gives_the_same_model_and_restores_the_base_exactly(adapted: MusicGen) -> None:
    before, apart = fingerprint(adapted.lm.plain), logits(adapted, adapted.lm)
    with adapted.lm.merged() as plain:
        assert fingerprint(plain) != before
        torch.testing.assert_close(logits(adapted, plain), apart, atol=1e-4, rtol=1e-4)
    assert fingerprint(adapted.lm.plain) == before
    with pytest.raises(KeyboardInterrupt), adapted.lm.merged():
        raise KeyboardInterrupt
    assert fingerprint(adapted.lm.plain) == before


@torch.no_grad()
def test_the_sampler_samples_from_base_and_adapters(adapted: MusicGen, base: MusicGen) -> None:
    """The greedy codes have the log-probabilities of a forward pass with separate adapters."""
    condition = adapted.condition(PROMPTS)
    drawn = Sampler(adapted.lm).sample(condition, 7, greedy=True)
    delayed, mask = delay(drawn.codes, adapted.lm.pad, adapted.lm.channels)
    scores = adapted.lm.logits(delayed, condition).log_softmax(-1)
    assert torch.equal(scores.argmax(-1)[:, mask], delayed[:, mask])
    torch.testing.assert_close(drawn.log_probs[:, mask], scores.amax(-1)[:, mask], atol=1e-4, rtol=1e-4)
    assert not torch.equal(drawn.codes, Sampler(base.lm).sample(condition, 7, greedy=True).codes)
    teacher = Sampler(adapted.lm.frozen()).sample(condition, 7, greedy=True)
    assert torch.equal(teacher.codes, Sampler(base.lm).sample(condition, 7, greedy=True).codes)


@torch.no_grad()
def test_saves_merged_weights_and_an_adapter_that_peft_loads(
    adapted: MusicGen, base: MusicGen, real_checkpoint: Path, tmp_path: Path
) -> None:
    expected = logits(adapted, adapted.lm)
    adapted.save(tmp_path / "step")
    merged = MusicGen.load(tmp_path / "step")
    torch.testing.assert_close(logits(merged, merged.lm), expected, atol=1e-4, rtol=1e-4)
    plain, report = MusicgenForConditionalGeneration.from_pretrained(tmp_path / "step", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert plain.state_dict().keys() == base._library[0].state_dict().keys()
    library = MusicgenForConditionalGeneration.from_pretrained(real_checkpoint)
    library.decoder = PeftModel.from_pretrained(library.decoder, tmp_path / "step" / "adapter").get_base_model()
    again = LanguageModel(library.decoder, library.enc_to_dec_proj)
    torch.testing.assert_close(logits(base, again), expected, atol=1e-4, rtol=1e-4)
    files = {file.name for file in (tmp_path / "step" / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files


def test_gradients_reach_only_the_adapters(adapted: MusicGen) -> None:
    logits(adapted, adapted.lm).square().mean().backward()
    for name, weight in adapted.lm.named_parameters():
        assert (weight.grad is not None and weight.grad.any()) == ("lora_" in name), name


def test_unknown_layers_are_named(base: MusicGen) -> None:
    with pytest.raises(ValueError, match=r"no linear layers query; expected some of .*q_proj"):
        AdaptedLanguageModel(base.lm, target_modules=[*LAYERS, "query"])


def test_a_missing_package_is_named_with_its_extra(base: MusicGen, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "peft":
            raise ImportError("No module named 'peft'")
        return original(name, *arguments, **options)

    monkeypatch.setattr("importlib.import_module", lambda name: without(name))
    with pytest.raises(ValueError, match=r"'peft'.*pip install -e '\.\[lora\]'"):
        AdaptedLanguageModel(base.lm)
