"""The text encoder's tokenizer accepts any text, and a saved tokenizer equals the trained one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qd.builtin.tokenizer import MAX_VOCABULARY, train_tokenizer
from qd.data.world.captions import NEGATIVE_PROMPT

CAPTIONS = ["A slow waltz with a piano melody.", "Fast techno, a drum machine.", NEGATIVE_PROMPT] * 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(CAPTIONS).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@given(text=st.text())
@example(text="</s> <pad><unk> Ünïcödé 日本語 🎹\n\t  ")
def test_any_text_is_restored(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id} & set(ids[:-1])
    assert tokenizer.decode(ids[:-1]) == text


def test_special_tokens_have_the_ids_of_t5(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    padded = tokenizer(["piano", "a slow piano waltz"], padding=True)
    assert padded.input_ids[0][-1] == 0 and padded.attention_mask[0][-1] == 0


def test_merges_shorten_known_words(tokenizer):
    assert len(tokenizer(NEGATIVE_PROMPT).input_ids) < len(NEGATIVE_PROMPT) / 2
    assert len(tokenizer) <= MAX_VOCABULARY


def test_saved_equals_trained_and_training_is_repeatable(tokenizer):
    again = train_tokenizer(CAPTIONS)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again("A piano in a techno track.").input_ids == tokenizer("A piano in a techno track.").input_ids


@pytest.mark.parametrize("vocabulary", [258, MAX_VOCABULARY + 1])
def test_impossible_vocabulary_is_refused(vocabulary):
    with pytest.raises(ValueError, match=f"vocabulary is {vocabulary}.*259.*{MAX_VOCABULARY}"):
        train_tokenizer(CAPTIONS, vocabulary)
