"""``qd merge``: models finetuned from one base, averaged weight by weight.

θ = Σ_i w_i · θ_i with Σ_i w_i = 1; for two models (1 − λ) · A + λ · B (Eq. 6), A the quality model, B the diverse one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from qd.config.checks import folder_problems
from qd.models.merging.sources import Source, merge_problems, open_source, shared_names
from qd.models.merging.weights import DEFAULT_LAMBDA, Weighted, default_folder, interpolation, soup, weight_problems
from qd.models.merging.writer import merged_dtype, write_merge
from qd.report.cards.merged import write_recipe
from qd.runs.disk import free_space


def merge(
    a: str | None = None,
    b: str | None = None,
    *,
    lam: float | None = None,
    models: Sequence[str] | None = None,
    out: str | Path | None = None,
    extrapolate: bool = False,
) -> Path:
    """Writes the merge of two models, or of any number, as a checkpoint folder with its recipe and a card.

    Args:
        a, b: any names that ``qd.models.checkpoints.resolver.resolve_model`` knows.
        lam: λ, the weight of ``b``; 0.5 if None.
        models: instead of ``a``, ``b`` and ``lam``: see :func:`qd.models.merging.weights.soup`.
        out: folder to make; ``runs/merged/<what it is>`` if None.
        extrapolate: allow weights outside [0, 1].

    Returns:
        The folder, in the layout of the first model. Tensors are stored in the finest type that they have in any of the
        models: in half precision only if it is the same in all.

    Raises:
        ValueError: the weights make no average, a model cannot be found, the models are no siblings (all differences
            are listed), a merged weight is not finite, or the folder exists or does not fit on the disk. Nothing is
            left behind.
    """
    weights = _weights(a, b, lam, models)
    folder = Path(out) if out else default_folder(weights, interpolated=not models)
    problems = weight_problems(weights, extrapolate)
    if folder.exists():
        problems.append(f"folder '{folder}' exists already and is not overwritten; choose another OUT")
    problems += folder_problems("out", folder.parent)
    sources = _open(weights, problems)
    _refuse("these models cannot be merged", problems)
    _refuse("these models are no siblings", merge_problems(sources))
    _check_disk(sources, folder)

    unfinished = folder.with_name(f"unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a merge that was killed
    try:
        write_merge(sources, unfinished)
        write_recipe(unfinished, folder.name, sources, lam=None if models else weights[1].weight)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def _weights(a: str | None, b: str | None, lam: float | None, models: Sequence[str] | None) -> list[Weighted]:
    if models:
        if (a, b, lam) != (None, None, None):
            raise ValueError("MODELS are given beside A, B or LAMBDA; name either two models and λ, or MODELS")
        return soup(models)
    if not a or not b:
        raise ValueError("name two models, A=<quality> B=<diverse>, or several: MODELS='<name>:<weight> …'")
    return interpolation(a, b, DEFAULT_LAMBDA if lam is None else lam)


def _open(weights: Sequence[Weighted], problems: list[str]) -> list[Source]:
    """The models that are found; the others are added to the problems."""
    sources: list[Source] = []
    for name, weight in weights:
        try:
            source = open_source(name, weight)
        except ValueError as error:
            problems.append(str(error))
            continue
        same = [other.name for other in sources if other.folder.resolve() == source.folder.resolve()]
        if same:
            problems.append(f"'{name}' is the same folder as '{same[0]}'; name a model once, with its whole weight")
        sources.append(source)
    return sources


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ValueError("\n".join([f"{what}, {count}:", *(f"  • {text}" for text in problems)]))


def _check_disk(sources: Sequence[Source], folder: Path) -> None:
    stored = [[source.tensors[name] for source in sources] for name in shared_names(sources)]
    needed = sum(tensors[0].elements * merged_dtype(tensors).itemsize for tensors in stored)
    place, free = free_space(folder)
    if free < needed:
        sizes = f"the merge needs {needed / 2**30:.2f} GiB and '{place}' has {free / 2**30:.2f} GiB free"
        raise ValueError(f"{sizes}; make room, or choose another OUT")
