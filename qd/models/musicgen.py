"""MusicGen checkpoints: the trainable language model, and the frozen text encoder and codec around it.

``MusicGen`` loads both layouts: the built-in one (``decoder/``, ``text_encoder/``, ``codec/``), and the transformers
library's single folder with an EnCodec codec (``facebook/musicgen-*``). All parts stay in eval mode: the library's
decoder has a dropout of 0.1, and with dropout the scored distribution would differ from the sampled one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    EncodecFeatureExtractor,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from qd.models.checkpoints.config_dtype import write_dtype
from qd.models.checkpoints.pretrained import hub_commit, hub_config, load_transformers
from qd.models.checkpoints.resolver import PROJECTION, hub_name, kind_problems, resolve_model
from qd.models.checkpoints.sizes import load_checked
from qd.models.checkpoints.tokenizer import load_tokenizer
from qd.models.codecs.codec import FrameCodec
from qd.models.codecs.encodec import EncodecCodec
from qd.models.condition import Condition, text_too_long
from qd.models.language_model import LanguageModel
from qd.models.lora import ADAPTER, AdaptedLanguageModel
from qd.runs.sharding import whole_state

_WEIGHTS = {"use_safetensors": True, "trained": True}
"""Loading options of every part of a MusicGen."""


class MusicGen(nn.Module):
    """A loaded checkpoint: language model, text encoder, tokenizer and codec. Only ``lm`` has trainable parameters.

    Args:
        lm: Language model.
        text_encoder: Model that returns ``last_hidden_state`` for the ids of ``tokenizer``; it is frozen here.
        tokenizer: Tokenizer of the text encoder.
        codec: Converts codes to audio and back; it is frozen here.
        library: The library's composite model that contains the parts; ``save`` writes it if it is given.

    Attributes:
        name, revision: Name for messages; commit of a model from the hub at loading time, None for a folder.

    Raises:
        ValueError: the codec and the language model have different codebooks.
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
        generated, decoded = (lm.codebooks, lm.codebook_size), (codec.codebooks, codec.codebook_size)
        if generated != decoded:
            sizes = f"codec has {decoded[0]} codebooks of {decoded[1]}, the decoder {generated[0]} of {generated[1]}"
            raise ValueError(f"{sizes}; use the codec that the decoder was trained on.")
        self.lm = lm
        self.text_encoder = text_encoder.requires_grad_(False)
        self.codec = codec.requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = ""
        self.revision: str | None = None
        # In a tuple, because the parts are already registered above; a plain attribute would register them twice.
        self._library = (library,)
        self.eval()

    def train(self, mode: bool = True) -> MusicGen:
        """Keeps eval mode, whatever ``mode`` is, like ``LanguageModel``."""
        return super().train(False)

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        offline: bool = False,
    ) -> MusicGen:
        """Loads a checkpoint by any name that ``resolve_model`` accepts; the codec is always float32.

        Args:
            name_or_folder: Name or folder of the checkpoint.
            dtype: Type of the language model and the text encoder.
            revision: Branch, tag or commit of a hub name without one (``owner/name@revision``); None is the main
                branch.
            offline: Use only downloaded models for a hub name, and no network. ``HF_HUB_OFFLINE=1`` in the environment
                has the same effect.

        Raises:
            ValueError: the name is unknown, a file or a weight is missing, the hub cannot be reached, or the model is
                not a MusicGen.
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
            widths = text_encoder.config.hidden_size, decoder.config.hidden_size
            projection = load_checked(lambda: nn.Linear(*widths), folder / PROJECTION, lambda linear: linear).to(dtype)
        tokenizer = load_tokenizer(str(folder / "text_encoder"), text_encoder)
        codec = FrameCodec.from_pretrained(folder / "codec")
        return cls(LanguageModel(decoder, projection), text_encoder, tokenizer, codec)

    @classmethod
    def _load_library(cls, source: str, dtype: torch.dtype, **hub: Any) -> MusicGen:
        model = load_transformers(MusicgenForConditionalGeneration, source, **_WEIGHTS, dtype=dtype, **hub)
        tokenizer = load_tokenizer(source, model.text_encoder, **hub)
        lm = LanguageModel(model.decoder, getattr(model, "enc_to_dec_proj", None))
        codec = EncodecCodec(model.audio_encoder.float(), lm.codebooks, lm.channels)
        return cls(lm, model.text_encoder, tokenizer, codec, model)

    def adapt(self, adapters: Callable[[LanguageModel], AdaptedLanguageModel]) -> None:
        """Replaces the language model by ``adapters(lm)``, which freezes its weights and trains only the adapters."""
        self.lm = adapters(self.lm)

    def save(self, folder: str | Path, half: bool = False, write: bool = True) -> None:
        """Writes the checkpoint as safetensors files, in the layout that it was loaded from.

        Each part keeps its type unless ``half``; the transformers library loads all parts in the language model's type.
        Adapters are merged into the weights, and also saved separately in ``adapter/``.

        Args:
            folder: Output folder.
            half: Write float16; not supported for weights that are sharded over ranks.
            write: False on all ranks except the first one: they only contribute their shards.
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
        # A frozen part may have a coarser type; loading with the config's type must not round the trained weights.
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
            save_file(halves, folder / PROJECTION)

    @property
    def device(self) -> torch.device:
        return next(self.lm.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Sample rate of the decoded audio, in Hz."""
        return self.codec.sample_rate

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Condition:
        """Encodes prompts; row i of the condition belongs to prompt i.

        Raises:
            ValueError: there is no prompt, or a prompt is longer than the text encoder's limit.
        """
        if isinstance(prompts, str) or len(prompts) == 0:
            raise ValueError(f"prompts must be a non-empty list of texts, got {prompts!r}.")
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt", verbose=False)
        if tokens["input_ids"].shape[1] > self.tokenizer.model_max_length:
            longest = prompts[int(tokens["attention_mask"].sum(dim=1).argmax())]
            raise ValueError(f"prompt '{longest[:40]}…' has {text_too_long(longest, self.tokenizer)}")
        ids, mask = (tokens[k].to(self.device, non_blocking=True) for k in ("input_ids", "attention_mask"))
        if ids.shape[1] == 0:  # all prompts are blank, and the tokenizer adds no end token
            return self.null_condition(len(prompts))
        states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state.to(self.lm.decoder.dtype)
        return Condition(states, mask.bool())

    def null_condition(self, batch: int) -> Condition:
        """Returns the unconditional condition, see ``Condition``."""
        return Condition.null(batch, self.text_encoder.config.hidden_size, self.device, self.lm.decoder.dtype)

    def frames(self, seconds: float) -> int:
        """Returns the number of codec frames of a clip of this length, rounded to the nearest frame.

        Raises:
            ValueError: the result is less than one frame.
        """
        if not math.isfinite(seconds) or round(seconds * self.codec.frame_rate) < 1:
            raise ValueError(f"seconds must be finite and at least {1 / self.codec.frame_rate:.3f}, got {seconds}.")
        return round(seconds * self.codec.frame_rate)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decodes codes ``(batch, codebooks, frames)`` to mono audio ``(batch, samples)``, averaged over channels."""
        return self.codec.decode(codes)

    def decode_channels(self, codes: Tensor) -> Tensor:
        """Decodes codes ``(batch, codebooks, frames)`` to audio ``(batch, channels, samples)``, left channel first."""
        if isinstance(self.codec, EncodecCodec):
            return self.codec.decode_channels(codes)
        return self.decode(codes)[:, None]


def _halved(module: nn.Module, half: bool) -> nn.Module:
    return copy.deepcopy(module).half() if half else module


def _save_pretrained(model: PreTrainedModel, state: dict[str, Tensor], folder: Path, half: bool) -> None:
    if half:
        _halved(model, half).save_pretrained(folder)
    else:
        model.save_pretrained(folder, state_dict=state)
