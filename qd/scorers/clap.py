"""Adherence by CLAP: the CLAP score."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import AutoTokenizer, ClapTextModelWithProjection, PreTrainedTokenizerBase

from qd.models.checkpoints.pretrained import hub_options, load_transformers
from qd.models.embedders.clap import CLAP, ClapEmbedder
from qd.scorers.cosine import CosineScorer

TEXT_TOKENS = 77
"""Tokens of a prompt that are read: those that the published models were trained with."""


class ClapTextHalf(ClapTextModelWithProjection):
    """Takes its half of a whole model's weights, without a word about the other half."""

    _keys_to_ignore_on_load_unexpected = ["^audio_model", "^audio_projection", "^logit_scale", "position_ids$"]


class ClapText(nn.Module):
    """CLAP's text tower: texts → embeddings ``(texts, width)``.

    Args:
        model: the tower with its projection.
        tokenizer: the model's.
    """

    def __init__(self, model: ClapTextModelWithProjection, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        positions = model.config.max_position_embeddings - model.config.pad_token_id - 1  # as RoBERTa counts them
        self.tokens = min(TEXT_TOKENS, positions)

    def forward(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.tokens, return_tensors="pt"
        ).to(self.model.device)
        return self.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds


def load_clap_scorer(source: str = CLAP) -> CosineScorer:
    """Of a hub name, or of a folder with the model, its feature extractor and its tokenizer.

    Raises:
        ValueError: it cannot be had, or is no CLAP model.
    """
    options = hub_options(source)
    model = load_transformers(ClapTextHalf, source, **options)
    text = ClapText(model, load_transformers(AutoTokenizer, source, **options))
    return CosineScorer("clap", ClapEmbedder.from_pretrained(source), text)
