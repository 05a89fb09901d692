"""A model to measure: one model by its name, or a weighted sum in the notation of ``qd merge --models``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qd.models.merging.weights import Weighted, interpolation, name_and_weight, soup, weight_problems
from qd.schema.paths import home_path


@dataclass(frozen=True)
class ModelSpec:
    """One model, or the sum Σ w_i · θ_i of several models.

    Attributes:
        weights: Models and their weights; a single model has the weight 1.
        lam: λ if two models are interpolated, else None.
    """

    weights: tuple[Weighted, ...]
    lam: float | None = None

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Parses ``base``, ``runs/x`` or ``runs/a:0.5 runs/b:0.5``.

        Raises:
            ValueError: some of the words have a weight and others have none.
        """
        words = split_words(text)
        if len(words) == 1 and name_and_weight(words[0])[1] is None:
            return cls.of(words[0])
        weights = tuple(soup(words))
        return cls(weights, weights[1].weight if len(weights) == 2 else None)

    @classmethod
    def of(cls, name: str) -> ModelSpec:
        """Returns the specification of a single model."""
        return cls((Weighted(name, 1.0),))

    @classmethod
    def between(cls, a: str, b: str, lam: float) -> ModelSpec:
        """Returns the specification of (1 − λ) · A + λ · B."""
        return cls(tuple(interpolation(a, b, lam)), lam)

    @property
    def merged(self) -> bool:
        return len(self.weights) > 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    @property
    def text(self) -> str:
        """The notation that :meth:`parse` reads."""
        if not self.merged:
            return self.weights[0].name
        return " ".join(f"{name}:{weight!r}" for name, weight in self.weights)

    def renamed(self, name: Callable[[str], str]) -> ModelSpec:
        """Returns the same sum with each model name replaced by ``name(old)``."""
        return ModelSpec(tuple(Weighted(name(old), weight) for old, weight in self.weights), self.lam)

    def __str__(self) -> str:
        """Returns a readable form: ``runs/a → runs/b λ=0.55``."""
        return self.text if self.lam is None else f"{' → '.join(self.names)} λ={self.lam:g}"

    def problems(self, extrapolate: bool = False) -> list[str]:
        """Returns why the weights form no weighted average, one sentence per problem."""
        lone = not self.merged and self.weights[0].weight == 1
        return [] if lone else weight_problems(self.weights, extrapolate)


def model_texts(texts: Sequence[str]) -> list[str]:
    """Splits the values of ``--model`` into one text per model; all words of a text with weights form one sum.

    Example:
        >>> model_texts(["base runs/a", "runs/a:0.5 base:0.5"])
        ['base', 'runs/a', 'runs/a:0.5 base:0.5']
    """
    models = []
    for text in texts:
        words = split_words(text)
        weighted = any(name_and_weight(word)[1] is not None for word in words)
        models += [text] if weighted else words
    return models


def split_words(text: str) -> list[str]:
    """Splits a text into words; the name of an existing folder is one word, even if it contains spaces."""
    return [text] if home_path(text).is_dir() else text.split()
