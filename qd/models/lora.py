"""Low-rank adapters (Hu et al. 2021, "LoRA") on a language model with frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qd.models.language_model import LanguageModel
from qd.runs.extras import require

ADAPTER = "adapter"
"""Subfolder of a checkpoint that holds the adapter in peft's format, next to the merged weights."""

LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""The linear layers of a decoder layer: self-attention, cross-attention to the text, and the feed-forward network."""


class AdaptedLanguageModel(LanguageModel):
    """A language model whose layers compute with W + (alpha / rank) · B·A, where only A and B are trained.

    ``plain`` is the model without adapters. Both models share the same parameters, so ``plain`` needs no extra memory.
    It is the teacher; inside :meth:`merged` it is also the student.

    Args:
        plain: Model to adapt; its parameters are frozen.
        rank: Rows of A and columns of B.
        alpha: Scale of the adapters before the division by the rank.
        target_modules: Names of the decoder's linear layers that get adapters.
        seed: Seed for the initial A. B starts at zero, so training starts at ``plain``.

    Raises:
        ValueError: peft is not installed, or the decoder has no linear layer of one of the names.
    """

    def __init__(
        self,
        plain: LanguageModel,
        rank: int = 16,
        alpha: float = 32.0,
        target_modules: Sequence[str] = LAYERS,
        seed: int = 0,
    ):
        peft = require("peft", "lora")
        plain.requires_grad_(False)
        shared = {id(tensor): tensor for tensor in (*plain.parameters(), *plain.buffers())}
        adapted = copy.deepcopy(plain, memo=shared)
        layers = adapted.decoder.model.decoder.layers
        known = sorted(
            {name.rsplit(".", 1)[-1] for name, part in layers.named_modules() if isinstance(part, nn.Linear)}
        )
        if unknown := sorted(set(target_modules) - set(known)):
            raise ValueError(
                f"model.lora.target_modules: the decoder has no linear layers {', '.join(unknown)}; expected some of "
                f"{', '.join(known)}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapted.decoder.add_adapter(
                peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(target_modules))
            )
        super().__init__(adapted.decoder, adapted.projection)
        self.plain = plain

    def frozen(self, dtype: torch.dtype | None = None) -> LanguageModel:
        """Returns the model without adapters. Training never changes it: it is not copied, ``dtype`` is ignored."""
        return self.plain

    @contextmanager
    def merged(self) -> Iterator[LanguageModel]:
        """Yields the plain model with the weights W + (alpha / rank) · B·A, and restores W exactly at the end.

        Sampling uses it: separate adapters would cost two more products per layer and token. The sum is written in
        place, and W is restored from a copy: subtracting the adapters again would leave rounding errors in the teacher.
        """
        weights = [(weight, weight.detach().clone()) for _, weight in self._adapted]
        try:
            with torch.no_grad():
                for layer, weight in self._adapted:
                    weight += layer.get_delta_weight("default").to(weight.dtype)
            yield self.plain
        finally:
            with torch.no_grad():
                for weight, original in weights:
                    weight.copy_(original)

    @property
    def adapted_weights(self) -> int:
        """Number of weights that the adapters change, and that :meth:`merged` copies."""
        return sum(weight.numel() for _, weight in self._adapted)

    @property
    def _adapted(self) -> list[tuple[Any, Tensor]]:
        """The layers with adapters, and the weight W of each."""
        from peft.tuners.lora import LoraLayer

        layers = [layer for layer in self.decoder.modules() if isinstance(layer, LoraLayer)]
        return [(layer, layer.get_base_layer().weight) for layer in layers]

    def save_adapter(self, folder: str | Path) -> None:
        """Writes ``adapter_config.json`` and ``adapter_model.safetensors``; peft can load them onto the decoder."""
        self.decoder.save_pretrained(folder)

    def load_adapter(self, folder: str | Path) -> None:
        """Loads the adapters that :meth:`save_adapter` has written for a model of the same layers and rank.

        Raises:
            ValueError: The file has other adapters.
            OSError, SafetensorError: The file cannot be read.
        """
        file = Path(folder) / "adapter_model.safetensors"
        saved = {
            name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): weight
            for name, weight in load_file(file).items()
        }
        own = {name for name in self.decoder.state_dict() if "lora_" in name}
        if saved.keys() != own:
            raise ValueError(f"{str(file)!r} has not the adapters of this model")
        self.decoder.load_state_dict(saved, strict=False)
