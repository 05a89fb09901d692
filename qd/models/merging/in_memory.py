"""One allocated model that takes on the weights of any model, or sum of models, of one base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from qd.metrics.formatting import first_items
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.language_model import LanguageModel
from qd.models.merging.model_spec import ModelSpec
from qd.models.merging.sources import Source, differences, open_source, shared_names
from qd.models.merging.writer import merged
from qd.models.musicgen import MusicGen

DIFFERENCES_IN_MESSAGE = 4


class WeightSwapper:
    """Sums are taken from the files piece by piece, as ``qd merge`` takes them, and written where the language model's
    weights lie: no second model in memory, and bit for bit the weights of the folder that ``qd merge`` would write.

    Text encoder and codec, which no training changes, stay those of the first model. A model that is no sibling of the
    one that is allocated takes its place.

    Args:
        check: is called with each model that is allocated, before it is put on the device; raises ``ValueError`` where
            that one cannot hold it.
    """

    def __init__(self, check: Callable[[MusicGen], None] = lambda music: None) -> None:
        self._check = check
        self._music: MusicGen | None = None
        self._allocated: Source | None = None
        self._held: ModelSpec | None = None
        self._fingerprint = ""
        self._sources: dict[str, Source] = {}
        self._compared: dict[tuple[Path, Path], list[str]] = {}

    def source(self, name: str) -> Source:
        """The checkpoint of that name; looked for once. Raises ``ValueError`` where there is none."""
        if name not in self._sources:
            self._sources[name] = open_source(name, 1.0)
        return self._sources[name]

    def problems(self, spec: ModelSpec) -> list[str]:
        """Why the models of a sum cannot be added up, one sentence for each pair; all of them can be opened."""
        first, *others = (self.source(name) for name in spec.names)
        found = {other.name: self._differences(first, other) for other in others}
        return [f"{name} is no sibling of {first.name}: {_shortened(told)}" for name, told in found.items() if told]

    def load(self, spec: ModelSpec, device: torch.device) -> MusicGen:
        """The allocated model, now with these weights; the first call decides the device.

        Raises:
            ValueError: a model cannot be had, the device cannot hold it, or a number of the sum is not finite.
        """
        if spec == self._held:
            return self._music
        sources = [Source(s.name, weight, s.folder, s.recipe) for s, weight in self._weighted(spec)]
        if self._allocated is None or self._differences(self._allocated, sources[0]):
            self._music = None  # before the next one is allocated
            music = MusicGen.load(sources[0].folder)
            self._check(music)
            self._music, self._allocated = music.to(device), sources[0]
        self._held = None  # until all weights are in
        self._write(sources)
        self._held, self._fingerprint = spec, fingerprint(self._music.lm)
        return self._music

    @property
    def fingerprint(self) -> str:
        """Of the language model, with the weights that it holds."""
        return self._fingerprint

    def _weighted(self, spec: ModelSpec) -> list[tuple[Source, float]]:
        """The models of the sum; of an end of a line that one alone, whose weights are copied as they are."""
        summed = [(self.source(name), weight) for name, weight in spec.weights if weight != 0]
        return summed if len(summed) == 1 else [(self.source(name), weight) for name, weight in spec.weights]

    @torch.no_grad()
    def _write(self, sources: list[Source]) -> None:
        places = _places(self._music.lm, sources[0].builtin)
        written = set()
        for name in shared_names(sources):
            if name not in places:
                continue
            flat, start = places[name].view(-1), 0
            for piece in merged(sources, name):
                flat[start : start + len(piece)].copy_(piece)
                start += len(piece)
            written.add(places[name].data_ptr())
        if missing := [name for name, place in places.items() if place.data_ptr() not in written]:
            raise ValueError(f"{sources[0].name} lacks weights: {', '.join(missing)}; name a complete checkpoint")

    def _differences(self, first: Source, other: Source) -> list[str]:
        pair = (first.folder, other.folder)
        if pair not in self._compared:
            self._compared[pair] = differences([first, other]) if first.folder != other.folder else []
        return self._compared[pair]


def _shortened(problems: list[str]) -> str:
    hint = " (`qd merge` lists all)" if len(problems) > DIFFERENCES_IN_MESSAGE else ""
    return first_items(problems, DIFFERENCES_IN_MESSAGE, "; ") + hint


def _places(lm: LanguageModel, builtin: bool) -> dict[str, Tensor]:
    """The language model's weights by the names that :attr:`Source.tensors` gives them."""
    decoder, projection = ("decoder/", "projection/") if builtin else ("decoder.", "enc_to_dec_proj.")
    return {
        **{f"{decoder}{name}": weight for name, weight in lm.decoder.state_dict().items()},
        **{f"{projection}{name}": weight for name, weight in lm.projection.state_dict().items()},
    }
