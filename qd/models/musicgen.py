"""MusicGen checkpoints: the language model that is trained, and the frozen text encoder and codec around it.

Both kinds of checkpoint go through ``MusicGen``: the built-in layout (``decoder/``, ``text_encoder/``, ``codec/``), and
the transformers library's whole folder with an EnCodec codec (``facebook/musicgen-*``). Everything stays in eval mode
at all times: the library's decoder has a dropout of 0.1, under which scoring would no longer equal the sampling policy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    EncodecFeatureExtractor,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from qd.models.codec import FrameCodec
from qd.models.condition import Condition
from qd.models.encodec import EncodecCodec
from qd.models.resolver import resolve_model


class LanguageModel(nn.Module):
    """What is trained: the decoder over delayed codes, and the projection of the text states to its width.

    Args:
        decoder: the library's decoder with its heads.
        projection: ``nn.Linear(text_width, width)``, or Identity (the default) where the widths are equal.

    Attributes:
        codebooks: number of codebooks Q.
        codebook_size: tokens V of a codebook.
        pad: the token of delayed positions outside the clip, V.
        channels: audio channels of the checkpoint; the delay of codebook q is ``q // channels``.

    Raises:
        ValueError: if the decoder's pad token is not V.
    """

    def __init__(self, decoder: MusicgenForCausalLM, projection: nn.Module | None = None):
        super().__init__()
        config = decoder.config
        if config.pad_token_id != config.vocab_size:
            wrong = f"pad_token_id must equal vocab_size={config.vocab_size}, got {config.pad_token_id}"
            raise ValueError(f"decoder: {wrong}; set it in the decoder's config.json.")
        # Exact and fast; and a decoder taken from a composite built of parts has none at all, hence no causal mask.
        decoder.set_attn_implementation("sdpa")
        self.decoder = decoder
        self.projection = projection if projection is not None else nn.Identity()
        self.codebooks: int = config.num_codebooks
        self.codebook_size: int = config.vocab_size
        self.pad: int = config.vocab_size
        self.channels: int = config.audio_channels
        self.eval()

    def train(self, mode: bool = True) -> LanguageModel:
        """Stays in eval mode whatever is asked: dropout would part the scores from the sampling policy."""
        return super().train(False)

    def project(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Cross-attention states ``(batch, length, width)``, zero where masked, and the mask of the visible ones.

        A null row keeps its first state visible. That state is zero, and so then are its keys and values: attention
        returns the library's exact zeros, with no softmax over an empty set and no NaN in its gradient.
        """
        states = self.projection(condition.states) * condition.mask[..., None]
        visible = condition.mask.clone()
        visible[:, 0] |= ~condition.mask.any(dim=1)
        return states, visible

    def hidden_states(self, delayed: Tensor, condition: Condition) -> Tensor:
        """Teacher-forced last hidden states ``(batch, steps, width)``; the one at step s predicts delayed step s.

        Args:
            delayed: ``(batch, codebooks, steps)``, see ``qd.models.delay.delay``. The input at step s is delayed step
                s - 1, all pad at step 0.
            condition: one row for each row of ``delayed``.
        """
        start = delayed.new_full((*delayed.shape[:2], 1), self.pad)
        inputs = torch.cat([start, delayed[..., :-1]], dim=-1)
        states, visible = self.project(condition)
        text = {"encoder_hidden_states": states, "encoder_attention_mask": visible}
        return self.decoder.model(inputs.flatten(0, 1), **text, use_cache=False).last_hidden_state

    def heads(self, hidden: Tensor) -> Tensor:
        """Logits ``(batch, codebooks, steps, codebook_size)`` of states ``(batch, steps, width)``; linear, no bias."""
        return torch.stack([head(hidden) for head in self.decoder.lm_heads], dim=1)

    def logits(self, delayed: Tensor, condition: Condition) -> Tensor:
        """``heads(hidden_states(delayed, condition))``."""
        return self.heads(self.hidden_states(delayed, condition))


class MusicGen(nn.Module):
    """A loaded checkpoint: language model, text encoder, tokenizer and codec. Only ``lm`` has trainable parameters.

    Args:
        lm: the language model.
        text_encoder: gives ``last_hidden_state`` for the ids of ``tokenizer``; frozen here.
        codec: codes to audio and back; frozen here.
        library: the library's composite model that the parts were taken from, which then is what ``save`` writes.

    Raises:
        ValueError: if the codec's codebooks are not those of the language model.
    """

    def __init__(
        self,
        lm: LanguageModel,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        codec: FrameCodec | EncodecCodec,
        library: MusicgenForConditionalGeneration | None = None,
    ):
        super().__init__()
        spoken, heard = (lm.codebooks, lm.codebook_size), (codec.codebooks, codec.codebook_size)
        if spoken != heard:
            sizes = f"codec has {heard[0]} codebooks of {heard[1]}, the decoder {spoken[0]} of {spoken[1]}"
            raise ValueError(f"{sizes}; use the codec that the decoder was trained on.")
        self.lm = lm
        self.text_encoder = text_encoder.requires_grad_(False)
        self.codec = codec.requires_grad_(False)
        self.tokenizer = tokenizer
        # In a tuple, so that its parts, registered above, are not registered twice.
        self._library = (library,)
        self.eval()

    def train(self, mode: bool = True) -> MusicGen:
        """Stays in eval mode whatever is asked, like ``LanguageModel``."""
        return super().train(False)

    @classmethod
    def load(cls, name_or_folder: str | Path, dtype: torch.dtype = torch.float32) -> MusicGen:
        """Loads a checkpoint by any name that ``resolve_model`` knows; the codec is always float32.

        Raises:
            ValueError: if the name is unknown, a file or a weight is missing, or the hub cannot be reached.
        """
        source = resolve_model(name_or_folder)
        builtin = (Path(source) / "decoder").is_dir()
        return cls._load_builtin(Path(source), dtype) if builtin else cls._load_library(source, dtype)

    @classmethod
    def _load_builtin(cls, folder: Path, dtype: torch.dtype) -> MusicGen:
        decoder = _from_pretrained(MusicgenForCausalLM, folder / "decoder", dtype)
        text_encoder = _from_pretrained(T5EncoderModel, folder / "text_encoder", dtype)
        projection = None
        if text_encoder.config.hidden_size != decoder.config.hidden_size:
            projection = nn.Linear(text_encoder.config.hidden_size, decoder.config.hidden_size, dtype=dtype)
            projection.load_state_dict(load_file(folder / "projection.safetensors"))
        tokenizer = AutoTokenizer.from_pretrained(folder / "text_encoder")
        codec = FrameCodec.from_pretrained(folder / "codec")
        return cls(LanguageModel(decoder, projection), text_encoder, tokenizer, codec)

    @classmethod
    def _load_library(cls, source: str, dtype: torch.dtype) -> MusicGen:
        model = _from_pretrained(MusicgenForConditionalGeneration, source, dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
        lm = LanguageModel(model.decoder, getattr(model, "enc_to_dec_proj", None))
        codec = EncodecCodec(model.audio_encoder.float(), lm.codebooks, lm.channels)
        return cls(lm, model.text_encoder, tokenizer, codec, model)

    def save(self, folder: str | Path, half: bool = False) -> None:
        """Writes the checkpoint in the layout it was loaded from, as safetensors; in float16 if ``half``."""
        folder = Path(folder)
        (library,) = self._library
        if library is not None:
            _halved(library, half).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            EncodecFeatureExtractor(self.lm.channels, self.sample_rate).save_pretrained(folder)
            return
        _halved(self.lm.decoder, half).save_pretrained(folder / "decoder")
        _halved(self.text_encoder, half).save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "text_encoder")
        self.codec.save_pretrained(folder / "codec", half=half)
        if isinstance(self.lm.projection, nn.Linear):
            save_file(_halved(self.lm.projection, half).state_dict(), folder / "projection.safetensors")

    @property
    def device(self) -> torch.device:
        return next(self.lm.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Samples a second of the decoded audio."""
        return self.codec.sample_rate

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Condition:
        """Encodes prompts; row i of the condition is prompt i.

        Raises:
            ValueError: if there is no prompt.
        """
        if isinstance(prompts, str) or len(prompts) == 0:
            raise ValueError(f"prompts must be a non-empty list of texts, got {prompts!r}.")
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
        ids, mask = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        if ids.shape[1] == 0:  # only blank prompts, and a tokenizer without an end token
            return self.null_condition(len(prompts))
        states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return Condition(states, mask.bool())

    def null_condition(self, batch: int) -> Condition:
        """The unconditional condition, see ``Condition``."""
        return Condition.null(batch, self.text_encoder.config.hidden_size, self.device, self.text_encoder.dtype)

    def frames(self, seconds: float) -> int:
        """Codec frames of a clip of this length, to the nearest frame.

        Raises:
            ValueError: if that is not at least one frame.
        """
        if not math.isfinite(seconds) or round(seconds * self.codec.frame_rate) < 1:
            raise ValueError(f"seconds must be finite and at least {1 / self.codec.frame_rate:.3f}, got {seconds}.")
        return round(seconds * self.codec.frame_rate)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, codebooks, frames)`` to audio ``(batch, samples)``."""
        return self.codec.decode(codes)


def _from_pretrained(kind: type[PreTrainedModel], source: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    """``from_pretrained`` that refuses what the library only warns of: weights it did not find and drew at random."""
    try:
        model, report = kind.from_pretrained(source, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except OSError as error:
        raise ValueError(f"model '{source}' cannot be loaded: {error}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise ValueError(f"model '{source}' lacks {len(report['missing_keys'])} weights: {missing}; save it again.")
    return model


def _halved(module: nn.Module, half: bool) -> nn.Module:
    return copy.deepcopy(module).half() if half else module
