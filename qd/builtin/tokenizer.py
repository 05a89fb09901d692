"""Byte-level BPE tokenizer of the shipped text encoder: it accepts any text, without unknown characters."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
MAX_VOCABULARY = 768
MIN_VOCABULARY = 256 + 3  # all bytes and the special tokens
MAX_TOKENS = 512  # tokens per text, as in T5; prompts of the grammar have at most about 30


def train_tokenizer(captions: Iterable[str], vocabulary: int = MAX_VOCABULARY) -> PreTrainedTokenizerFast:
    """Learns byte-level merges from ``captions``.

    The alphabet contains all 256 bytes, so decoding restores the encoded text exactly, in any script. Special tokens
    have T5's ids: pad 0, end 1, unknown 2 (never used). The end token is appended to every text. A special token in a
    text ("</s>") is encoded as plain characters.

    Args:
        captions: Texts to learn from.
        vocabulary: Size of the vocabulary, including 3 special tokens and 256 bytes; at most ``MAX_VOCABULARY``.

    Returns:
        A tokenizer whose ``save_pretrained`` folder ``AutoTokenizer`` loads.

    Raises:
        ValueError: ``vocabulary`` is too small for the bytes, or larger than the size limit of the model allows.
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
