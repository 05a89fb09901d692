"""The card of an embedder: how it was made, and how well it tells recordings apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import to_yaml
from qd.data.world.world import BUILTIN

_METRICS = ("recall@1", "recall@5", "auc")

_CARD = """# {name}: an audio embedder

Embeds {clip_seconds:g} s of audio at {sample_rate} Hz as a unit vector of {embedding_width} numbers; clips of one
recording lie close together, clips of different recordings apart. Mel spectrogram, {layers} transformer layers of width
{width}, mean over time, projection: {parameters:,} parameters. Trained with the semi-hard triplet loss on pairs of
clips that do not overlap.

- Command: `make train-embedder CONFIG=<this config, below>`
- Seed: {seed}
- Data: {learned}, {pairs} pairs of clips{codec}
- Steps: {max_steps} of {batch_pairs} pairs; these are the weights of step {best_step}, the best by held-out recall@1
- Time: {minutes:.1f} min of training

## Held-out quality
{heard} recordings of {held_out}, never trained on: the first clip of each looks for the second among all
second clips.

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
    heard: int,
    parameters: int,
    best_step: int,
    seconds: float,
    metrics: Mapping[str, float],
) -> None:
    """Writes ``metrics.json`` and ``README.md`` beside the weights.

    Args:
        folder: of the finished embedder.
        config: of the run.
        heard: held-out recordings that it was measured on.
        parameters: of the model.
        best_step: the step whose weights these are.
        seconds: spent in training.
        metrics: as validation logs them, ``validation/<raw or codec>/<metric>``.
    """
    measured = {"step": best_step, "train_seconds": round(seconds, 1), "validation_pairs": heard}
    measured |= {key.removeprefix("validation/"): round(float(value), 4) for key, value in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n")
    variants = ("raw", "codec") if config.codec.model else ("raw",)
    rows = [[variant, *(f"{measured[f'{variant}/{name}']:.3f}" for name in _METRICS)] for variant in variants]
    through = f"; {config.codec.share:.0%} of the clips went through the codec of `{config.codec.model}`"
    values = {**vars(config), **vars(config.model), **vars(config.data), **vars(config.trainer)}
    learned, held_out = _recordings(config)
    values |= {
        "learned": learned,
        "heard": heard,
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
    (folder / "README.md").write_text(_CARD.format(**values))


def _recordings(config: EmbedderTrainConfig) -> tuple[str, str]:
    """What was learned from, and what was held out, in words."""
    data = config.data
    if data.source == BUILTIN:
        return f"built-in world, split `{data.train_split}`", f"the split `{data.validation_split}`"
    share = f"{data.validation_share:.0%}"
    return f"`{data.source}`, all but {share} of its recordings", f"the {share} held out of `{data.source}`"
