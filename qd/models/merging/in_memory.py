"""One allocated model that loads the weights of one sibling model, or of a weighted sum of them, after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from qd.metrics.formatting import first_items
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.language_model import LanguageModel
from qd.models.merging.model_spec import ModelSpec
from qd.models.merging.sources import Source, merge_problems, open_source, shared_names
from qd.models.merging.writer import merged_pieces
from qd.models.musicgen import MusicGen

DIFFERENCES_IN_MESSAGE = 4


class WeightSwapper:
    """Loads weighted sums of models into one allocated model.

    It computes sums from the files piece by piece, like ``qd merge``, and writes them into the weights of the language
    model. This needs no second model in memory, and the weights equal those that ``qd merge`` would write, bit for bit.

    Text encoder and codec, which training never changes, stay those of the first model. A model that is not a sibling
    of the allocated one replaces it.

    Args:
        check: Function that is called with each newly allocated model before it moves to the device; it raises
            ``ValueError`` if the device cannot hold the model.
    """

    def __init__(self, check: Callable[[MusicGen], None] = lambda music: None) -> None:
        self._check = check
        self._music: MusicGen | None = None
        self._allocated: Source | None = None
        self._loaded: ModelSpec | None = None
        self._fingerprint = ""
        self._sources: dict[str, Source] = {}
        self._compared: dict[tuple[Path, Path], list[str]] = {}

    def source(self, name: str) -> Source:
        """Returns the checkpoint of that name, which is resolved once. Raises ``ValueError`` if there is none."""
        if name not in self._sources:
            self._sources[name] = open_source(name, 1.0)
        return self._sources[name]

    def problems(self, spec: ModelSpec) -> list[str]:
        """Returns why the models of a sum cannot be merged, one sentence per pair; all of them must be readable."""
        first, *others = (self.source(name) for name in spec.names)
        differences = {other.name: self._differences(first, other) for other in others}
        return [
            f"{name} is not a sibling of {first.name}: {_shortened(listed)}"
            for name, listed in differences.items()
            if listed
        ]

    def load(self, spec: ModelSpec, device: torch.device) -> MusicGen:
        """Loads these weights into the allocated model and returns it; the first call decides the device.

        Raises:
            ValueError: a model cannot be loaded, the device cannot hold it, or a weight of the sum is not finite.
        """
        if spec == self._loaded:
            return self._music
        sources = [Source(s.name, weight, s.folder, s.recipe) for s, weight in self._weighted(spec)]
        if self._allocated is None or self._differences(self._allocated, sources[0]):
            self._music = None  # before the next one is allocated
            music = MusicGen.load(sources[0].folder)
            self._check(music)
            self._music, self._allocated = music.to(device), sources[0]
        self._loaded = None  # until all weights are written
        self._write(sources)
        self._music.name = spec.text
        self._loaded, self._fingerprint = spec, fingerprint(self._music.lm)
        return self._music

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the language model with its current weights."""
        return self._fingerprint

    def _weighted(self, spec: ModelSpec) -> list[tuple[Source, float]]:
        """Returns the models of the sum with their weights; if only one weight is not 0, only that one, to copy."""
        summed = [(self.source(name), weight) for name, weight in spec.weights if weight != 0]
        return summed if len(summed) == 1 else [(self.source(name), weight) for name, weight in spec.weights]

    @torch.no_grad()
    def _write(self, sources: list[Source]) -> None:
        targets = _named_weights(self._music.lm, sources[0].builtin)
        written = set()
        for name in shared_names(sources):
            if name not in targets:
                continue
            flat, start = targets[name].view(-1), 0
            for piece in merged_pieces(sources, name):
                flat[start : start + len(piece)].copy_(piece)
                start += len(piece)
            written.add(targets[name].data_ptr())
        if missing := [name for name, target in targets.items() if target.data_ptr() not in written]:
            raise ValueError(f"{sources[0].name} lacks weights: {', '.join(missing)}; name a complete checkpoint")

    def _differences(self, first: Source, other: Source) -> list[str]:
        pair = (first.folder, other.folder)
        if pair not in self._compared:
            self._compared[pair] = merge_problems([first, other]) if first.folder != other.folder else []
        return self._compared[pair]


def _shortened(problems: list[str]) -> str:
    hint = " (`qd merge` lists all)" if len(problems) > DIFFERENCES_IN_MESSAGE else ""
    return first_items(problems, DIFFERENCES_IN_MESSAGE, "; ") + hint


def _named_weights(lm: LanguageModel, builtin: bool) -> dict[str, Tensor]:
    """Returns the language model's weights under the names of :attr:`Source.tensors`."""
    decoder, projection = ("decoder/", "projection/") if builtin else ("decoder.", "enc_to_dec_proj.")
    return {
        **{f"{decoder}{name}": weight for name, weight in lm.decoder.state_dict().items()},
        **{f"{projection}{name}": weight for name, weight in lm.projection.state_dict().items()},
    }
