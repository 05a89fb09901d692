"""The card of a trained model: what it is, how it was trained, its scores, how to load it, and its licence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import OmegaConf

from qd.evaluation.columns import METRICS
from qd.evaluation.points import Point, comparable
from qd.metrics.formatting import markdown_interval, markdown_table
from qd.models.checkpoints.resolver import ASSETS, SHIPPED

README = "README.md"
_MUSICGEN = "facebook/musicgen-"
_SNAPSHOT = re.compile(r"models--([^/]+)--([^/]+)/snapshots/")

_CARD = """# {run}, step {step}: text to music without guidance

Finetuned from {base} by diversity-rewarded distillation of classifier-free guidance (Cideron et al., ICLR 2025): the
base model with guidance γ = {scale:g} ({negative}) was distilled into its own weights, on its own samples{reward}.
Sample it **without** guidance, at temperature {temperature:g}, from all tokens.

{use}
## Measured

{measured}

## How it was trained

`make train CONFIG=<this config>`, step {step} of {max_steps}, {batch_size} sequences of {seconds:g} s per step:

```yaml
{yaml}```

## Licence

{licence} {scorers}
"""

_USE = """## Use

In this folder, with only the transformers library:

```python
{code}```

{more}
"""

_PIPELINE = """from transformers import pipeline

music = pipeline("text-to-audio", model=".")
clip = music("A calm piano piece.")
audio, sample_rate = clip["audio"], clip["sampling_rate"]
"""
_PIPELINE_MORE = """The clip has the length of the training clips. `generate_kwargs={"max_new_tokens": …}` changes it:
one token for each codec frame, and one for each codebook after the first."""

_PARTS = """from transformers import AutoTokenizer, MusicgenForCausalLM, T5EncoderModel

decoder = MusicgenForCausalLM.from_pretrained("decoder")
text_encoder = T5EncoderModel.from_pretrained("text_encoder")
tokenizer = AutoTokenizer.from_pretrained("text_encoder")
"""
_PARTS_MORE = """The codec in this folder needs `qd`, and so does the projection of the text states if there is a
`projection.safetensors`. With `qd`, `make sample MODEL=<this folder> PROMPT="A calm piano piece."` writes WAV files."""


_SCORERS = """The models that computed the reward and the scores are not part of these weights but may have stricter
licences (MuQ and MuQ-MuLan: CC-BY-NC-4.0)."""


class Origin(NamedTuple):
    """The origin of weights.

    Attributes:
        licence: Licence identifier of the Hugging Face hub; "other" if unknown.
        base_model: Hub name of the model that the weights derive from; None if there is none.
    """

    licence: str
    base_model: str | None


def origin(base: str) -> Origin:
    """Returns the origin of a run's base model; for a folder it is read from the folder's card.

    MusicGen's published weights are CC-BY-NC-4.0, and so are weights derived from them.

    Args:
        base: The base model as the run's config names it.
    """
    folder = Path(base)
    if base in SHIPPED or folder == ASSETS / "base":
        return Origin("apache-2.0", None)
    if (folder / README).is_file():
        card = ModelCard.load(folder / README, ignore_metadata_errors=True).data
        if card.license:
            return Origin(str(card.license), card.base_model if isinstance(card.base_model, str) else None)
    if snapshot := _SNAPSHOT.search(f"{folder.as_posix()}/"):
        base = "/".join(snapshot.groups())
    name = None if Path(base).is_absolute() or folder.is_dir() else base
    return Origin("cc-by-nc-4.0" if name and name.startswith(_MUSICGEN) else "other", name)


def write_card(folder: Path, recipe: Mapping[str, Any], points: Sequence[Point]) -> None:
    """Writes ``README.md`` into a step folder; called again if the step is measured after it was saved.

    Args:
        folder: Step folder, complete except for the card.
        recipe: Origin of the weights: ``run``, ``step`` and the run's ``config``.
        points: Points of the run; the card shows those of its first step and of this one.
    """
    config, step = recipe["config"], recipe["step"]
    guidance, base = config["guidance"], config["model"]["name"]
    negative, beta = guidance["negative_prompt"], config["beta"]
    text = _CARD.format(
        run=recipe["run"],
        step=step,
        base=_base_model(base),
        scale=guidance["scale"],
        negative="unconditional" if negative is None else f"negative prompt “{negative}”",
        reward=f", with a reward (β = {beta:g}) for dissimilar samples of the same prompt" if beta else "",
        temperature=config["rollout"]["temperature"],
        use=usage(folder),
        measured=_measured(step, points),
        max_steps=config["trainer"]["max_steps"],
        batch_size=config["data"]["batch_size"],
        seconds=config["rollout"]["seconds"],
        yaml=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
        licence=_licence(base),
        scorers=_SCORERS,
    )
    (folder / README).write_text(front_matter([origin(base)]) + text, encoding="utf-8")


def usage(folder: Path) -> str:
    """The card section that shows how to load the folder without this project; depends on the folder's layout."""
    parts = (folder / "decoder").is_dir()
    code, more = (_PARTS, _PARTS_MORE) if parts else (_PIPELINE, _PIPELINE_MORE)
    return _USE.format(code=code, more=more)


def front_matter(origins: Sequence[Origin]) -> str:
    """The YAML header of a card, which the hub reads; the licence is "other" if the sources have different ones."""
    licences = sorted({source.licence for source in origins})
    bases = sorted({source.base_model for source in origins if source.base_model})
    data = ModelCardData(
        license=licences[0] if len(licences) == 1 else "other",
        base_model=bases if len(bases) > 1 else next(iter(bases), None),
        pipeline_tag="text-to-audio",
        library_name="transformers",
        tags=["music", "text-to-music", "musicgen", "distillation", "classifier-free-guidance", "diversity"],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _measured(step: int, points: Sequence[Point]) -> str:
    """A table of this step and of the run's first step, both without guidance."""
    here = [point for point in points if point.step == step and point.guidance_scale == 1]
    if not here:
        return "Not measured at this step."
    last = here[-1]
    first = [point for point in points if point.step == 0 < step and comparable(point, last)][:1]
    table = measured_table({f"step {point.step}": point for point in (*first, last)})
    return f"Step 0 is the base model. {table}"


def measured_table(points: Mapping[str, Point]) -> str:
    """A table of comparable points, and how they were measured.

    Args:
        points: Points without guidance at one temperature, by the names of their rows.
    """
    last = list(points.values())[-1]
    rows = [[name, *(markdown_interval(point.metrics[metric]) for metric in METRICS)] for name, point in points.items()]
    table = markdown_table(["", *METRICS], rows)
    return (
        f"Without guidance, at T = {last.temperature:g}, on {last.n_prompts} prompts × {last.n_samples} samples "
        f"(protocol `{last.protocol}`, seed {last.seed}): means over prompts, with 95 % bootstrap intervals. "
        f"Scorers: `{last.scorers}`.\n\n{table}"
    )


def _base_model(name: str) -> str:
    if name in SHIPPED:
        return "the built-in base model" if name == "base" else f"the built-in model `{name}`"
    return f"`{name}`"


def _licence(base: str) -> str:
    licence, name = origin(base)
    if base in SHIPPED:
        return "The built-in models are Apache-2.0, and so are these weights."
    if licence == "other":
        return (
            f"These weights inherit the licence of their base model, `{name or base}`, which is unknown here. "
            "MusicGen's published weights are CC-BY-NC-4.0."
        )
    return f"These weights derive from `{name or base}`, and inherit its licence: {licence}."
