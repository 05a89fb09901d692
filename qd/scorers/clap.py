"""Adherence scores from CLAP (the "CLAP score")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import AutoTokenizer, ClapTextModelWithProjection, PreTrainedTokenizerBase

from qd.models.checkpoints.pretrained import hub_options, load_transformers
from qd.models.embedders.clap import CLAP, ClapEmbedder
from qd.scorers.cosine import CosineScorer

TEXT_TOKENS = 77
"""Maximum tokens of a prompt, as in the training of the published models."""


class ClapTextHalf(ClapTextModelWithProjection):
    """Loads the text part of a complete model's weights, without warnings about the audio part."""

    _keys_to_ignore_on_load_unexpected = ["^audio_model", "^audio_projection", "^logit_scale", "position_ids$"]


class ClapText(nn.Module):
    """CLAP's text tower: maps texts to embeddings ``(texts, width)``.

    Args:
        model: Text tower with its projection.
        tokenizer: The model's tokenizer.
    """

    def __init__(self, model: ClapTextModelWithProjection, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        # RoBERTa's positions start after the pad id.
        positions = model.config.max_position_embeddings - model.config.pad_token_id - 1
        self.tokens = min(TEXT_TOKENS, positions)

    def forward(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.tokens, return_tensors="pt"
        ).to(self.model.device)
        return self.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds


def load_clap_scorer(source: str = CLAP) -> CosineScorer:
    """Loads a hub name, or a folder with the model, its feature extractor and its tokenizer.

    Raises:
        ValueError: the model cannot be loaded, or is not a CLAP model.
    """
    options = hub_options(source)
    model = load_transformers(ClapTextHalf, source, **options)
    text = ClapText(model, load_transformers(AutoTokenizer, source, **options))
    return CosineScorer("clap", ClapEmbedder.from_pretrained(source), text)
