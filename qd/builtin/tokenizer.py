"""Byte-level BPE tokenizer of the shipped text encoder: it accepts any text and never meets an unknown character."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
MAX_VOCABULARY = 768
MIN_VOCABULARY = 256 + 3  # all bytes and the special tokens
MAX_TOKENS = 512  # of a text, as T5 has it; the grammar writes no prompt of more than about 30


def train_tokenizer(captions: Iterable[str], vocabulary: int = MAX_VOCABULARY) -> PreTrainedTokenizerFast:
    """Learn byte-level merges from ``captions``.

    All 256 bytes are in the alphabet, so that decoding gives back exactly the text that was encoded, in any script.
    Special tokens keep T5's ids: pad 0, end 1, unknown 2 (which no text ever produces). The end token is appended to
    every text. A text that spells a special token ("</s>") is read as plain characters.

    Args:
        captions: texts to learn from.
        vocabulary: size of the vocabulary, 3 special tokens and 256 bytes included; at most ``MAX_VOCABULARY``.

    Returns:
        A tokenizer whose ``save_pretrained`` folder ``AutoTokenizer`` loads.

    Raises:
        ValueError: if ``vocabulary`` leaves no room for the bytes, or is larger than the model's size allows.
    """
    if not MIN_VOCABULARY <= vocabulary <= MAX_VOCABULARY:
        raise ValueError(
            f"vocabulary is {vocabulary}, expected {MIN_VOCABULARY} (all bytes and 3 special tokens) "
            f"to {MAX_VOCABULARY}: change base.vocabulary"
        )
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
