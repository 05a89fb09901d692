"""MusicGen checkpoints: the language model that is trained, and the frozen text encoder and codec around it.

Both kinds of checkpoint go through ``MusicGen``: the built-in layout (``decoder/``, ``text_encoder/``, ``codec/``), and
the transformers library's whole folder with an EnCodec codec (``facebook/musicgen-*``). Everything stays in eval mode
at all times: the library's decoder has a dropout of 0.1, under which scoring would no longer equal the sampling policy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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

from qd.models.checkpoints.config_dtype import write_dtype
from qd.models.checkpoints.pretrained import hub_commit, hub_config, load_transformers
from qd.models.checkpoints.resolver import hub_name, kind_problems, resolve_model
from qd.models.codecs.codec import FrameCodec
from qd.models.codecs.encodec import EncodecCodec
from qd.models.condition import Condition, text_too_long
from qd.models.language_model import LanguageModel
from qd.models.lora import ADAPTER, AdaptedLanguageModel
from qd.runs.sharding import whole_state

_WEIGHTS = {"use_safetensors": True, "trained": True}
"""Options of everything that a MusicGen is loaded from."""


class MusicGen(nn.Module):
    """A loaded checkpoint: language model, text encoder, tokenizer and codec. Only ``lm`` has trainable parameters.

    Args:
        lm: the language model.
        text_encoder: gives ``last_hidden_state`` for the ids of ``tokenizer``; frozen here.
        codec: codes to audio and back; frozen here.
        library: the library's composite model that the parts were taken from, which then is what ``save`` writes.

    Attributes:
        revision: the commit that a hub name stood for when it was loaded; None of a folder.

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
        self.revision: str | None = None
        # In a tuple, so that its parts, registered above, are not registered twice.
        self._library = (library,)
        self.eval()

    def train(self, mode: bool = True) -> MusicGen:
        """Stays in eval mode whatever is asked, like ``LanguageModel``."""
        return super().train(False)

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        offline: bool = False,
    ) -> MusicGen:
        """Loads a checkpoint by any name that ``resolve_model`` knows; the codec is always float32.

        Args:
            name_or_folder: of the checkpoint.
            dtype: of the language model and the text encoder.
            revision: branch, tag or commit of a hub name that tells none, ``owner/name@revision``; None is its main
                branch.
            offline: look for a hub name among the models that have been downloaded, and never ask the network; so it
                is wherever the environment has ``HF_HUB_OFFLINE=1``.

        Raises:
            ValueError: if the name is unknown, a file or a weight is missing, the hub cannot be reached, or what it has
                is no MusicGen.
        """
        source = resolve_model(name_or_folder)
        if (Path(source) / "decoder").is_dir():
            return cls._load_builtin(Path(source), dtype)
        if Path(source).is_dir():
            return cls._load_library(source, dtype)
        source, revision = hub_name(source, revision)
        commit = hub_commit(source, revision, offline)
        if problems := kind_problems(hub_config(source, commit, offline)):
            raise ValueError(f"model '{source}': {'; '.join(problems)}; name a MusicGen checkpoint")
        music = cls._load_library(source, dtype, revision=commit, local_files_only=offline)
        music.revision = commit
        return music

    @classmethod
    def _load_builtin(cls, folder: Path, dtype: torch.dtype) -> MusicGen:
        decoder = load_transformers(MusicgenForCausalLM, str(folder / "decoder"), **_WEIGHTS, dtype=dtype)
        text_encoder = load_transformers(T5EncoderModel, str(folder / "text_encoder"), **_WEIGHTS, dtype=dtype)
        projection = None
        if text_encoder.config.hidden_size != decoder.config.hidden_size:
            projection = nn.Linear(text_encoder.config.hidden_size, decoder.config.hidden_size, dtype=dtype)
            projection.load_state_dict(load_file(folder / "projection.safetensors"))
        tokenizer = _load_tokenizer(str(folder / "text_encoder"), text_encoder)
        codec = FrameCodec.from_pretrained(folder / "codec")
        return cls(LanguageModel(decoder, projection), text_encoder, tokenizer, codec)

    @classmethod
    def _load_library(cls, source: str, dtype: torch.dtype, **hub: Any) -> MusicGen:
        model = load_transformers(MusicgenForConditionalGeneration, source, **_WEIGHTS, dtype=dtype, **hub)
        tokenizer = _load_tokenizer(source, model.text_encoder, **hub)
        lm = LanguageModel(model.decoder, getattr(model, "enc_to_dec_proj", None))
        codec = EncodecCodec(model.audio_encoder.float(), lm.codebooks, lm.channels)
        return cls(lm, model.text_encoder, tokenizer, codec, model)

    def adapt(self, adapters: Callable[[LanguageModel], AdaptedLanguageModel]) -> None:
        """Freezes the language model and trains adapters on it instead, which ``adapters`` puts there."""
        self.lm = adapters(self.lm)

    def save(self, folder: str | Path, half: bool = False, write: bool = True) -> None:
        """Writes the checkpoint in the layout it was loaded from, as safetensors; in float16 if ``half``.

        Else each part in the type that it has, and the transformers library loads all in the language model's.
        Adapters are merged into the weights, and stand by themselves in ``adapter/`` too.

        Args:
            folder: to write.
            half: in float16; not of weights that are shared out over ranks.
            write: False on all ranks but the first, which only lend it their shares.
        """
        folder, (library,) = Path(folder), self._library
        with self.lm.merged() as lm:
            parts = {"": library} if library is not None else {"decoder": lm.decoder, "projection": lm.projection}
            states = {name: whole_state(part.state_dict()) for name, part in parts.items()}
            if write:
                self._save_weights(lm, states, folder, half)
        if write and isinstance(self.lm, AdaptedLanguageModel):
            self.lm.save_adapter(folder / ADAPTER)

    def _save_weights(self, lm: LanguageModel, states: dict[str, dict[str, Tensor]], folder: Path, half: bool) -> None:
        # A frozen part may be coarser: a plain load shall not round off what was trained.
        (library,), dtype = self._library, torch.float16 if half else lm.decoder.dtype
        if library is not None:
            _save_pretrained(library, states[""], folder, half)
            write_dtype(folder, dtype)
            self.tokenizer.save_pretrained(folder)
            EncodecFeatureExtractor(lm.channels, self.sample_rate, padding_side="left").save_pretrained(folder)
            return
        _save_pretrained(lm.decoder, states["decoder"], folder / "decoder", half)
        _halved(self.text_encoder, half).save_pretrained(folder / "text_encoder")
        write_dtype(folder / "text_encoder", dtype)
        self.tokenizer.save_pretrained(folder / "text_encoder")
        self.codec.save_pretrained(folder / "codec", half=half)
        if projection := states["projection"]:
            halves = {name: weight.half() if half else weight for name, weight in projection.items()}
            save_file(halves, folder / "projection.safetensors")

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
            ValueError: if there is no prompt, or one is longer than the text encoder reads.
        """
        if isinstance(prompts, str) or len(prompts) == 0:
            raise ValueError(f"prompts must be a non-empty list of texts, got {prompts!r}.")
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt", verbose=False)
        if tokens["input_ids"].shape[1] > self.tokenizer.model_max_length:
            longest = prompts[int(tokens["attention_mask"].sum(dim=1).argmax())]
            raise ValueError(f"prompt '{longest[:40]}…' has {text_too_long(longest, self.tokenizer)}")
        ids, mask = (tokens[k].to(self.device, non_blocking=True) for k in ("input_ids", "attention_mask"))
        if ids.shape[1] == 0:  # only blank prompts, and a tokenizer without an end token
            return self.null_condition(len(prompts))
        states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state.to(self.lm.decoder.dtype)
        return Condition(states, mask.bool())

    def null_condition(self, batch: int) -> Condition:
        """The unconditional condition, see ``Condition``."""
        return Condition.null(batch, self.text_encoder.config.hidden_size, self.device, self.lm.decoder.dtype)

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
        """Codes ``(batch, codebooks, frames)`` to audio ``(batch, samples)``; of a stereo model the mean over channels,
        as embedders and scorers hear it."""
        return self.codec.decode(codes)

    def decode_channels(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, codebooks, frames)`` to audio ``(batch, channels, samples)``, left first."""
        if isinstance(self.codec, EncodecCodec):
            return self.codec.decode_channels(codes)
        return self.decode(codes)[:, None]


def _load_tokenizer(source: str, text_encoder: PreTrainedModel, **hub: Any) -> PreTrainedTokenizerBase:
    """The tokenizer beside a text encoder. Where its files are missing the library makes one that knows no word; an
    encoder's own has as many tokens as it reads, but for a few that fill up its matrix."""
    tokenizer = load_transformers(AutoTokenizer, source, **hub)
    has, read = len(tokenizer), text_encoder.config.vocab_size
    if not read / 2 <= has <= read:
        raise ValueError(
            f"{source!r} has a tokenizer of {has:,} tokens and a text encoder of {read:,}: tokenizer.json or "
            "tokenizer_config.json is missing or another model's. Take both from the model that the text encoder is of "
            "(MusicGen's is t5-base) into a folder with the checkpoint, and name that folder"
        )
    return tokenizer


def _halved(module: nn.Module, half: bool) -> nn.Module:
    return copy.deepcopy(module).half() if half else module


def _save_pretrained(model: PreTrainedModel, state: dict[str, Tensor], folder: Path, half: bool) -> None:
    if half:
        _halved(model, half).save_pretrained(folder)
    else:
        model.save_pretrained(folder, state_dict=state)
