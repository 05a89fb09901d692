"""The metrics of each prompt, from the scores, embeddings and facets of its samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from qd.audio.facets import Facets, clip_facets
from qd.metrics.diversity import diversity, effective_diversity
from qd.metrics.facets import facet_metrics
from qd.metrics.vendi import vendi_score
from qd.objectives.diversity import pairwise_dissimilarity
from qd.scorers.protocol import Thresholds

SCORES = ("quality", "adherence", "preference", "entropy")


def facet_rows(audio: Tensor) -> Tensor:
    """Returns the facets of each clip, ``(rows, 16)``.

    Args:
        audio: Clips at :data:`qd.audio.facets.RATE`, ``(rows, samples)``.
    """
    facets = [clip_facets(clip) for clip in audio.float().cpu().numpy()]
    return torch.tensor([[*values, *chroma.tolist()] for *values, chroma in facets], device=audio.device)


def per_prompt_metrics(samples: Mapping[str, Tensor], thresholds: Thresholds) -> dict[str, np.ndarray]:
    """Returns each metric of :mod:`qd.evaluation.columns` for each prompt, ``(prompts,)``.

    Args:
        samples: :data:`SCORES`, ``(prompts, samples)``; ``embedding`` and ``heldout_embedding``, ``(prompts, samples,
            width)``; and, if measured, ``facets``, the values of :func:`facet_rows`, ``(prompts, samples, 16)``.
        thresholds: Least scores of clips that count as clean, or as effective.
    """
    samples = {name: values.double() for name, values in samples.items()}
    embeddings, heldout_embeddings = samples["embedding"], samples["heldout_embedding"]
    values = {
        **{name: samples[name].mean(dim=1) for name in SCORES},
        "diversity": diversity(embeddings),
        "diversity_heldout": diversity(heldout_embeddings),
        "vendi": vendi_score(1 - pairwise_dissimilarity(embeddings)),
    }
    for name, score, threshold in (
        ("clean", "preference", thresholds.clean),
        ("effective", "quality", thresholds.quality),
    ):
        good = samples[score] >= threshold
        values |= {
            f"{name}_share": good.double().mean(dim=1),
            f"{name}_left_out": (good.sum(dim=1) < 2).double(),
            f"diversity_{name}": effective_diversity(embeddings, samples[score], threshold),
            f"diversity_{name}_heldout": effective_diversity(heldout_embeddings, samples[score], threshold),
        }
    if "facets" in samples:
        *scalars, chroma = samples["facets"].split([1, 1, 1, 1, 12], dim=-1)
        values |= facet_metrics(Facets(*(one[..., 0] for one in scalars), chroma))
    return {name: one.numpy() for name, one in values.items()}
