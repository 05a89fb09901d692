"""The card of an embedder: how it was trained, and how well it distinguishes recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import to_yaml
from qd.data.world.world import BUILTIN

_METRICS = ("recall@1", "recall@5", "auc")

_CARD = """# {name}: an audio embedder

Embeds {clip_seconds:g} s of audio at {sample_rate} Hz as a unit vector of {embedding_width} numbers. Clips of one
recording have similar vectors, clips of different recordings have dissimilar ones. Mel spectrogram, {layers}
transformer layers of width {width}, mean over time, projection: {parameters:,} parameters. Trained with the semi-hard
triplet loss on pairs of clips that do not overlap.

- Command: `make train-embedder CONFIG=<this config, below>`
- Seed: {seed}
- Data: {training_data}, {pairs} pairs of clips{codec}
- Steps: {max_steps} of {batch_pairs} pairs; weights of step {best_step}, which has the best held-out recall@1
- Training time: {minutes:.1f} min

## Held-out quality
{recordings} recordings of {held_out}, never used in training. For the first clip of each recording, the second clip
is searched among the second clips of all recordings.

| clips | recall@1 | recall@5 | ROC-AUC same/different |
|---|---|---|---|
{rows}

## Config
```yaml
{yaml}```
"""


def write_card(
    folder: Path,
    config: EmbedderTrainConfig,
    recordings: int,
    parameters: int,
    best_step: int,
    seconds: float,
    metrics: Mapping[str, float],
) -> None:
    """Writes ``metrics.json`` and ``README.md`` next to the weights.

    Args:
        folder: Folder of the trained embedder.
        config: Config of the run.
        recordings: Number of held-out recordings that it was measured on.
        parameters: Number of parameters of the model.
        best_step: Step of these weights.
        seconds: Training time.
        metrics: Metrics as validation logs them, ``validation/<raw or codec>/<metric>``.
    """
    measured = {"step": best_step, "train_seconds": round(seconds, 1), "validation_pairs": recordings}
    measured |= {key.removeprefix("validation/"): round(float(value), 4) for key, value in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    variants = ("raw", "codec") if config.codec.model else ("raw",)
    rows = [[variant, *(f"{measured[f'{variant}/{name}']:.3f}" for name in _METRICS)] for variant in variants]
    through = (
        f"; {config.codec.share:.0%} of the clips were encoded and decoded with the codec of `{config.codec.model}`"
    )
    values = {**vars(config), **vars(config.model), **vars(config.data), **vars(config.trainer)}
    training_data, held_out = _data_sets(config)
    values |= {
        "training_data": training_data,
        "recordings": recordings,
        "held_out": held_out,
        "name": config.name or folder.parent.name,
        "pairs": config.data.batch_pairs * config.trainer.max_steps,
        "parameters": parameters,
        "best_step": best_step,
        "minutes": seconds / 60,
        "rows": "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "codec": through if config.codec.model else "",
        "yaml": to_yaml(config),
    }
    (folder / "README.md").write_text(_CARD.format(**values), encoding="utf-8")


def _data_sets(config: EmbedderTrainConfig) -> tuple[str, str]:
    """Descriptions of the training data and of the held-out data."""
    data = config.data
    if data.source == BUILTIN:
        return f"built-in world, split `{data.train_split}`", f"the split `{data.validation_split}`"
    share = f"{data.validation_share:.0%}"
    return f"`{data.source}`, all but {share} of its recordings", f"the {share} held out of `{data.source}`"
