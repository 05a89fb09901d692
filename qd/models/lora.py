"""Low-rank adapters (Hu et al. 2021, "LoRA") on a language model whose own weights stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qd.models.language_model import LanguageModel
from qd.runs.extras import require

ADAPTER = "adapter"
"""Folder of the adapter, in peft's format, beside the merged weights."""

LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""The linear layers of a decoder layer: attention to itself and to the text, and the feed-forward network."""


class AdaptedLanguageModel(LanguageModel):
    """A language model W whose layers act as W + (alpha / rank) · B·A, of which A and B alone are trained.

    ``plain`` is the model without adapters. Both read the same parameters, so that it costs no memory: it is the
    teacher, and inside :meth:`merged` it is the student too.

    Args:
        plain: the model; its parameters are frozen.
        rank: rows of A, columns of B.
        alpha: scale of the adapters; divided by the rank.
        target_modules: names of the linear layers of the decoder that get adapters.
        seed: of A; B starts at zero, and the model at ``plain``.

    Raises:
        ValueError: peft is not installed, or no layer has one of the names.
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
        """The model without adapters, which training leaves alone: no copy, hence no ``dtype`` of its own."""
        return self.plain

    @contextmanager
    def merged(self) -> Iterator[LanguageModel]:
        """The model without adapters, holding W + (alpha / rank) · B·A until the context ends, and then W bit by bit.

        Sampling needs it: adapters apart would cost two more products a layer and token. The sum is written where W
        lies, and W back from a copy: subtracting what was added would leave a rounding error in the teacher each time.
        """
        weights = [(weight, weight.detach().clone()) for _, weight in self._adapted]
        try:
            with torch.no_grad():
                for layer, weight in self._adapted:
                    weight += layer.get_delta_weight("default").to(weight.dtype)
            yield self.plain
        finally:
            with torch.no_grad():
                for weight, kept in weights:
                    weight.copy_(kept)

    @property
    def adapted_weights(self) -> int:
        """Weights that the adapters are merged into, and that are put aside meanwhile."""
        return sum(weight.numel() for _, weight in self._adapted)

    @property
    def _adapted(self) -> list[tuple[Any, Tensor]]:
        """The layers that have adapters, and the weight W of each."""
        from peft.tuners.lora import LoraLayer

        layers = [layer for layer in self.decoder.modules() if isinstance(layer, LoraLayer)]
        return [(layer, layer.get_base_layer().weight) for layer in layers]

    def save_adapter(self, folder: str | Path) -> None:
        """Writes ``adapter_config.json`` and ``adapter_model.safetensors``: peft loads them onto the decoder."""
        self.decoder.save_pretrained(folder)
