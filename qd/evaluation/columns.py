"""Names of the metrics of a point, which are columns of ``points.jsonl``."""

from __future__ import annotations

ENDINGS = ("", "_lo", "_hi")
"""Endings of the three columns of a metric: its mean, and both ends of its interval."""

METRICS = ("quality", "adherence", "preference", "diversity", "diversity_heldout", "vendi", "entropy")
"""Metrics that every point has."""

CLEAN = ("clean_share", "clean_left_out", "diversity_clean", "diversity_clean_heldout")
"""Share of the clips whose preference is at least a threshold, share of the prompts with fewer than two such clips, and
diversity of such clips by both embedders, over the other prompts."""

EFFECTIVE = ("effective_share", "effective_left_out", "diversity_effective", "diversity_effective_heldout")
"""The same for the clips whose quality is at least a threshold."""

FACETS = (
    "tempo", "brightness", "onset_rate", "loudness",
    "tempo_spread", "chroma_spread", "brightness_spread", "onset_rate_spread", "loudness_spread",
)  # fmt: skip
"""Means and spreads of :func:`qd.metrics.facets.facet_metrics`, where they are measured."""

OPTIONAL_METRICS = CLEAN + EFFECTIVE + FACETS
"""Metrics that points lack if they were not measured, or were written by earlier versions."""
