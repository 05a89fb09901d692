"""Loads the tokenizer of a text encoder."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from qd.models.checkpoints.pretrained import load_transformers


def load_tokenizer(source: str, text_encoder: PreTrainedModel, **hub: Any) -> PreTrainedTokenizerBase:
    """Loads a text encoder's tokenizer, and checks its size: if files are missing, the library makes one without words.

    A matching tokenizer has almost as many tokens as the encoder's embedding matrix, whose size may be rounded up.

    Raises:
        ValueError: The tokenizer cannot be loaded, or its size does not match.
    """
    tokenizer = load_transformers(AutoTokenizer, source, **hub)
    tokens, embeddings = len(tokenizer), text_encoder.config.vocab_size
    if not embeddings / 2 <= tokens <= embeddings:
        raise ValueError(
            f"{source!r} has a tokenizer of {tokens:,} tokens and a text encoder of {embeddings:,}: tokenizer.json or "
            "tokenizer_config.json is missing or belongs to another model. Copy both files of the text encoder's model "
            "(t5-base for MusicGen) into a folder with the checkpoint, and name that folder"
        )
    return tokenizer
