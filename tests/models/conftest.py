"""Tiny models with random weights for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    EncodecConfig,
    EncodecModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from qd.models.condition import Condition
from qd.models.language_model import LanguageModel

WORDS = ["a", "bad", "bright", "calm", "jazz", "piano", "quality", "rock", "slow", "with"]


def randomized(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """Builds a model with large weights, so that logits differ clearly: the library's initial weights (0.02) give
    nearly uniform logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                std = 2.0 if isinstance(module, torch.nn.Embedding) else 3.0 / weight.shape[-1] ** 0.5
                weight.data += std * torch.randn(weight.shape)
    return model


def build_decoder(seed: int = 0, **overrides) -> MusicgenForCausalLM:
    sizes = {"vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48, "num_attention_heads": 4}
    sizes |= {"num_codebooks": 4, "max_position_embeddings": 64} | overrides
    vocab_size = sizes["vocab_size"]
    config = MusicgenDecoderConfig(**sizes, pad_token_id=vocab_size, bos_token_id=vocab_size)
    return randomized(lambda: MusicgenForCausalLM(config), seed)


def build_lm(seed: int = 0, text_width: int | None = None, **overrides) -> LanguageModel:
    decoder = build_decoder(seed, **overrides)
    if text_width is None:
        return LanguageModel(decoder)
    projection = randomized(lambda: torch.nn.Linear(text_width, decoder.config.hidden_size), seed)
    return LanguageModel(decoder, projection)


def build_condition(rows: int, length: int, width: int, seed: int = 0) -> Condition:
    """Random states; the first row has the full length, the other rows are at most as long."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    lengths[0] = length
    return Condition(torch.randn(rows, length, width, generator=generator), torch.arange(length) < lengths[:, None])


def build_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def build_text_encoder(width: int, seed: int = 1) -> T5EncoderModel:
    config = T5Config(vocab_size=len(WORDS) + 3, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return randomized(lambda: T5EncoderModel(config), seed)


def build_library_model(channels: int = 1, text_width: int = 24) -> MusicgenForConditionalGeneration:
    """The library's complete model: T5, EnCodec with 4 codebooks of 16 at 500 frames a second, decoder."""
    config = EncodecConfig(
        sampling_rate=4_000, upsampling_ratios=[4, 2], target_bandwidths=[8.0], codebook_size=16, hidden_size=8,
        num_filters=2, num_lstm_layers=1,
    )  # fmt: skip
    codec = randomized(lambda: EncodecModel(config), seed=2)
    generator = torch.Generator().manual_seed(2)
    for layer in codec.quantizer.layers:
        layer.codebook.embed.copy_(torch.randn(layer.codebook.embed.shape, generator=generator))
    model = MusicgenForConditionalGeneration(
        text_encoder=build_text_encoder(text_width),
        audio_encoder=codec,
        decoder=build_decoder(3, num_codebooks=4 * channels, audio_channels=channels),
    )
    model.enc_to_dec_proj = randomized(lambda: torch.nn.Linear(text_width, 32), seed=4)
    model.set_attn_implementation({"decoder": "sdpa"})
    pad = model.decoder.config.pad_token_id
    model.generation_config.update(decoder_start_token_id=pad, pad_token_id=pad, bos_token_id=pad)
    return model.eval()


@pytest.fixture(scope="session")
def make_lm() -> Callable[..., LanguageModel]:
    return build_lm


@pytest.fixture(scope="session")
def make_condition() -> Callable[..., Condition]:
    return build_condition


@pytest.fixture(scope="session")
def make_library_model() -> Callable[..., MusicgenForConditionalGeneration]:
    return build_library_model


@pytest.fixture(scope="session")
def encodec_checkpoint(tmp_path_factory) -> Path:
    """Folder in the library's layout, with several safetensors shards and tokenizer files."""
    folder = tmp_path_factory.mktemp("musicgen") / "encodec"
    build_library_model().save_pretrained(folder, max_shard_size="40KB")
    build_tokenizer().save_pretrained(folder)
    return folder
