"""The model of the base stage, a decoder over delayed codes with its text encoder, and its held-out losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM, T5Config, T5EncoderModel

from qd.builtin.captioned_codes import Batch, with_wrong_captions, without_captions
from qd.models.condition import Condition
from qd.models.delay import delay
from qd.models.language_model import LanguageModel
from qd.schema.setting import setting


@dataclass
class ModelSize:
    """Widths and depths. The text encoder is as wide as the decoder, so no projection is needed between them."""

    hidden_size: int = setting(256, "Width of the decoder and the text encoder.", ge=1)
    layers: int = setting(4, "Number of decoder layers.", ge=1)
    heads: int = setting(8, "Number of attention heads of the decoder, a divisor of hidden_size.", ge=1)
    ffn_size: int = setting(1024, "Width of the decoder's feed-forward layers.", ge=1)
    text_layers: int = setting(2, "Number of layers of the text encoder.", ge=1)
    text_heads: int = setting(4, "Number of attention heads of the text encoder.", ge=1)
    text_head_size: int = setting(32, "Width of a head of the text encoder.", ge=1)
    text_ffn_size: int = setting(256, "Width of the text encoder's feed-forward layers.", ge=1)


class CaptionedLanguageModel(nn.Module):
    """Decoder and text encoder, both trained; computes the cross entropy of codes given captions."""

    def __init__(self, size: ModelSize, vocabulary: int, codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.lm = LanguageModel(MusicgenForCausalLM(_decoder_config(size, codebooks, codebook_size)))
        self.lm.use_plain_attention()
        self.text_encoder = T5EncoderModel(_text_config(size, vocabulary))

    def forward(self, batch: Batch) -> Tensor:
        """Mean cross entropy (codebooks,) in nats per token over the delayed codes, without padding."""
        delayed, mask = delay(batch.codes, self.lm.pad)
        logits = self.lm.logits(delayed, self.condition(batch))
        losses = F.cross_entropy(
            logits.flatten(0, 2).float(), delayed.flatten(), ignore_index=self.lm.pad, reduction="none"
        )
        return losses.view(delayed.shape).sum(dim=(0, 2)) / (len(delayed) * mask.sum(dim=1))

    def condition(self, batch: Batch) -> Condition:
        """Encodes the captions; a row without any True in its mask becomes the null condition, zeros."""
        states = self.text_encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        return Condition(states.masked_fill(~batch.mask[..., None], 0.0), batch.mask)


@torch.no_grad()
def held_out_losses(model: CaptionedLanguageModel, batches: Iterable[Batch]) -> dict[str, float]:
    """Cross entropy in nats per token with correct captions, without captions, and with wrong captions.

    Returns:
        ``loss``, ``loss_without_caption``, ``loss_wrong_caption``; ``loss_codebook_<q>`` with correct captions; and
        ``caption_gain``, wrong minus correct: 0 for a model that ignores captions.
    """
    device = next(model.parameters()).device
    totals, clips = torch.zeros(3, model.lm.codebooks), 0
    for batch in batches:
        batch = Batch(*(tensor.to(device) for tensor in batch))
        variants = (batch, without_captions(batch), with_wrong_captions(batch))
        totals += torch.stack([model(variant) for variant in variants]).cpu() * len(batch.codes)
        clips += len(batch.codes)
    correct, without, wrong = (totals / clips).mean(dim=1).tolist()
    losses = {
        "loss": correct,
        "loss_without_caption": without,
        "loss_wrong_caption": wrong,
        "caption_gain": wrong - correct,
    }
    return losses | {f"loss_codebook_{q}": value for q, value in enumerate((totals[0] / clips).tolist())}


def _decoder_config(size: ModelSize, codebooks: int, codebook_size: int) -> MusicgenDecoderConfig:
    return MusicgenDecoderConfig(
        vocab_size=codebook_size,
        num_codebooks=codebooks,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        ffn_dim=size.ffn_size,
        dropout=0.0,
        pad_token_id=codebook_size,
        bos_token_id=codebook_size,
    )


def _text_config(size: ModelSize, vocabulary: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary,
        d_model=size.hidden_size,
        d_kv=size.text_head_size,
        d_ff=size.text_ffn_size,
        num_layers=size.text_layers,
        num_heads=size.text_heads,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
