"""The rival of the token loop: the library's ``generate``."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from transformers import EncodecConfig, EncodecModel, MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from qd.models.condition import Condition
from qd.models.musicgen import MusicGen


def library_tokens(music: MusicGen) -> Callable[[Condition, int, float], object]:
    """The library's ``generate`` on the same decoder, whose codec is replaced by one that does nothing."""
    config = EncodecConfig(upsampling_ratios=[2], codebook_size=music.lm.codebook_size, hidden_size=8, num_filters=2)
    model = MusicgenForConditionalGeneration(
        text_encoder=music.text_encoder, audio_encoder=EncodecModel(config), decoder=music.lm.decoder
    ).eval()
    model.to(music.lm.decoder.device, music.lm.decoder.dtype).set_attn_implementation({"decoder": "sdpa"})
    pad, books = music.lm.pad, music.lm.codebooks
    model.generation_config.update(decoder_start_token_id=pad, pad_token_id=pad, bos_token_id=pad)
    model.audio_encoder.decode = lambda codes, *_, **__: SimpleNamespace(audio_values=codes[0].float())

    def generate(condition: Condition, frames: int, scale: float) -> object:
        batch, guided = len(condition), scale != 1
        both = condition.cat(music.null_condition(batch)) if guided else condition
        return model.generate(
            decoder_input_ids=torch.full((batch * books, 1), pad, device=condition.states.device),
            encoder_outputs=BaseModelOutput(both.states.clone()),
            attention_mask=both.mask.long(),
            max_length=frames + books,
            guidance_scale=scale if guided else None,
            do_sample=True,
            top_k=0,
            num_return_sequences=1,
        )

    return generate
