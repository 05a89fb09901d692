"""Checkpoints like MusicGen's on the hub: the library's classes and config values, T5's tokenizer, random weights.

Only width and depth are smaller. There are 2,048 codes, 4 codebooks (8 in stereo), EnCodec at 32 kHz and 50 frames a
second, and a T5 with another width than the decoder and a vocabulary of 32,128.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import (
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

T5_TOKENIZER = Path(__file__).with_name("assets") / "t5"
TEXT_WIDTH, WIDTH = 24, 32


def _randomize(module: torch.nn.Module) -> None:
    """Sets weights so large that logits differ clearly."""
    for name, weight in module.named_parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=1.0 if "embed" in name else 1.5 / weight.shape[1] ** 0.5)


def build_real_model(channels: int = 1, seed: int = 0, layers: int = 2) -> MusicgenForConditionalGeneration:
    """Builds a model like ``facebook/musicgen-small`` (1 channel) or ``-stereo-small`` (2 channels)."""
    decoder = MusicgenDecoderConfig(
        vocab_size=2048,
        max_position_embeddings=2048,
        num_hidden_layers=layers,
        ffn_dim=4 * WIDTH,
        num_attention_heads=4,
        hidden_size=WIDTH,
        num_codebooks=4 * channels,
        audio_channels=channels,
        pad_token_id=2048,
        bos_token_id=2048,
        dropout=0.1,
    )
    text = T5Config(vocab_size=32128, d_model=TEXT_WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=3)
    codec = EncodecConfig(
        target_bandwidths=[2.2],
        sampling_rate=32_000,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=2048,
        codebook_dim=16,
        hidden_size=16,
        num_filters=4,
        use_causal_conv=False,
        chunk_length_s=None,
        overlap=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {"text_encoder": T5EncoderModel(text), "decoder": MusicgenForCausalLM(decoder)}
        model = MusicgenForConditionalGeneration(audio_encoder=EncodecModel(codec), **parts)
        for part in (model.decoder, model.text_encoder, model.enc_to_dec_proj):
            _randomize(part)
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.copy_(torch.randn_like(layer.codebook.embed))
    model.generation_config.update(
        decoder_start_token_id=2048, pad_token_id=2048, bos_token_id=2048, guidance_scale=3.0, max_length=1500
    )
    model.set_attn_implementation({"decoder": "sdpa"})
    return model.eval()


def save_real_checkpoint(folder: Path, channels: int = 1, shard: str = "10GB") -> Path:
    """Saves the complete folder, with tokenizer and feature extractor."""
    build_real_model(channels).save_pretrained(folder, max_shard_size=shard)
    shutil.copytree(T5_TOKENIZER, folder, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
    EncodecFeatureExtractor(channels, 32_000, padding_side="left").save_pretrained(folder)
    return folder
