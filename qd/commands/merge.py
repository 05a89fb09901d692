"""``qd merge``: averages models that were finetuned from one base, weight by weight.

θ = Σ_i w_i · θ_i with Σ_i w_i = 1; for two models (1 − λ) · A + λ · B (Eq. 6), A the quality model, B the diverse one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qd.config.checks import new_place_problems
from qd.metrics.formatting import bullet_list
from qd.models.merging.sources import Source, merge_problems, open_source, shared_names
from qd.models.merging.weights import DEFAULT_LAMBDA, Weighted, default_folder, interpolation, soup, weight_problems
from qd.models.merging.writer import merged_dtype, write_merge
from qd.report.cards.merged import write_recipe
from qd.runs.atomic import atomic_folder
from qd.runs.disk import require_space


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
        a: Quality model; any name for ``qd.models.checkpoints.resolver.resolve_model``.
        b: Diverse model.
        lam: λ, the weight of ``b``; 0.5 if None.
        models: Models with weights, instead of ``a``, ``b`` and ``lam``; see :func:`qd.models.merging.weights.soup`.
        out: Folder to make; ``runs/merged/<description>`` if None.
        extrapolate: Whether weights outside [0, 1] are allowed.

    Returns:
        The folder, in the layout of the first model. Tensors have the most precise type among the models: half
        precision only if it is the same in all models.

    Raises:
        ValueError: The weights do not add up to 1, a model cannot be found, the models have different bases (the
            message lists all differences), a merged weight is not finite, or the folder exists or does not fit on the
            disk. Nothing is left behind.
    """
    weights = _weights(a, b, lam, models)
    folder = Path(out) if out else default_folder(weights, interpolated=not models)
    problems = weight_problems(weights, extrapolate)
    problems += new_place_problems("out", folder)
    sources = _open(weights, problems)
    _raise_if("these models cannot be merged", problems)
    _raise_if("these models are not siblings", merge_problems(sources))
    _check_disk(sources, folder)

    with atomic_folder(folder) as temporary:
        write_merge(sources, temporary)
        write_recipe(temporary, folder.name, sources, lam=None if models else weights[1].weight)
    return folder


def _weights(a: str | None, b: str | None, lam: float | None, models: Sequence[str] | None) -> list[Weighted]:
    if models:
        if (a, b, lam) != (None, None, None):
            raise ValueError("MODELS cannot be combined with A, B or LAMBDA; name either two models and λ, or MODELS")
        return soup(models)
    if not a or not b:
        raise ValueError("name two models, A=<quality> B=<diverse>, or several: MODELS='<name>:<weight> …'")
    return interpolation(a, b, DEFAULT_LAMBDA if lam is None else lam)


def _open(weights: Sequence[Weighted], problems: list[str]) -> list[Source]:
    """Opens the models; adds those that cannot be opened to the problems."""
    sources: list[Source] = []
    for name, weight in weights:
        try:
            source = open_source(name, weight)
        except ValueError as error:
            problems.append(str(error))
            continue
        same = [other.name for other in sources if other.folder.resolve() == source.folder.resolve()]
        if same:
            problems.append(f"'{name}' is the same folder as '{same[0]}'; name each model once, with its whole weight")
        sources.append(source)
    return sources


def _raise_if(what: str, problems: Sequence[str]) -> None:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ValueError(bullet_list(f"{what}, {count}:", problems, len(problems)))


def _check_disk(sources: Sequence[Source], folder: Path) -> None:
    stored = [[source.tensors[name] for source in sources] for name in shared_names(sources)]
    needed = sum(tensors[0].elements * merged_dtype(tensors).itemsize for tensors in stored)
    require_space(folder, needed, "the merge needs", "or choose another OUT")
