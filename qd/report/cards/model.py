"""The card of a trained model: what it is, how it was made, how it scored, how to load it and under which licence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import OmegaConf

from qd.evaluation.points import METRICS, Point, comparable
from qd.metrics.formatting import markdown_interval, markdown_table
from qd.models.checkpoints.resolver import ASSETS, SHIPPED

README = "README.md"
_MUSICGEN = "facebook/musicgen-"
_SNAPSHOT = re.compile(r"models--([^/]+)--([^/]+)/snapshots/")

_CARD = """# {run}, step {step}: text to music without guidance

Finetuned from {base} by diversity-rewarded distillation of classifier-free guidance (Cideron et al., ICLR 2025): the
base model under guidance γ = {scale:g} ({negative}) was distilled into its own weights, on its own samples{reward}. It
is to be sampled **without** guidance, at temperature {temperature:g}, from all tokens.

{use}
## Measured

{measured}

## How it was made

`make train CONFIG=<this config>`, step {step} of {max_steps}, {batch_size} sequences of {seconds:g} s a step:

```yaml
{yaml}```

## Licence

{licence} {heard}
"""

_USE = """## Use

In this folder, with the transformers library alone:

```python
{code}```

{more}
"""

_PIPELINE = """from transformers import pipeline

music = pipeline("text-to-audio", model=".")
clip = music("A calm piano piece.")
audio, sample_rate = clip["audio"], clip["sampling_rate"]
"""
_PIPELINE_MORE = """The clip is as long as those of the training. `generate_kwargs={"max_new_tokens": …}` changes that:
one for each codec frame, and one for each codebook after the first."""

_PARTS = """from transformers import AutoTokenizer, MusicgenForCausalLM, T5EncoderModel

decoder = MusicgenForCausalLM.from_pretrained("decoder")
text_encoder = T5EncoderModel.from_pretrained("text_encoder")
tokenizer = AutoTokenizer.from_pretrained("text_encoder")
"""
_PARTS_MORE = """The codec beside them is `qd`'s own, as is the projection of the text states where there is a
`projection.safetensors`. With it, `make sample MODEL=<this folder> PROMPT="A calm piano piece."` writes WAV files."""


_HEARD = """The models that listened, of the reward and of the table, are no part of these weights but may have stricter
licences (MuQ and MuQ-MuLan: CC-BY-NC-4.0)."""


class Origin(NamedTuple):
    """Where weights come from.

    Attributes:
        licence: identifier of the Hugging Face hub; "other" where it is not known.
        base_model: hub name of the model that they derive from, None if it has none.
    """

    licence: str
    base_model: str | None


def origin(base: str) -> Origin:
    """Of the weights that a run began with, named as its config names them; a folder's own card is asked.

    MusicGen's published weights are CC-BY-NC-4.0, and so is what derives from them.
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
    """Writes ``README.md`` into a step folder; once more when the step is measured after it was saved.

    Args:
        folder: complete but for the card.
        recipe: what made it: ``run``, ``step`` and the run's ``config``.
        points: of the run; those of its first step and of this one are shown.
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
        reward=f", while samples of one prompt were rewarded, by β = {beta:g}, for sounding unlike each other"
        if beta
        else "",
        temperature=config["rollout"]["temperature"],
        use=usage(folder),
        measured=_measured(step, points),
        max_steps=config["trainer"]["max_steps"],
        batch_size=config["data"]["batch_size"],
        seconds=config["rollout"]["seconds"],
        yaml=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
        licence=_licence(base),
        heard=_HEARD,
    )
    (folder / README).write_text(front_matter([origin(base)]) + text, encoding="utf-8")


def usage(folder: Path) -> str:
    """The section of a card that shows how the folder loads without this project, by its layout."""
    parts = (folder / "decoder").is_dir()
    code, more = (_PARTS, _PARTS_MORE) if parts else (_PIPELINE, _PIPELINE_MORE)
    return _USE.format(code=code, more=more)


def front_matter(origins: Sequence[Origin]) -> str:
    """What the hub reads at the head of a card, of weights that derive from others; "other" where licences differ."""
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
    """A table of the step beside the step that the run began with, both without guidance."""
    here = [point for point in points if point.step == step and point.guidance_scale == 1]
    if not here:
        return "Not measured at this step."
    last = here[-1]
    first = [point for point in points if point.step == 0 < step and comparable(point, last)][:1]
    table = measured_table({f"step {point.step}": point for point in (*first, last)})
    return f"Step 0 is the base model. {table}"


def measured_table(points: Mapping[str, Point]) -> str:
    """Points that compare, a row each, and how they were measured.

    Args:
        points: sampled without guidance and at one temperature, by the names of their rows.
    """
    last = list(points.values())[-1]
    rows = [[name, *(markdown_interval(point.metrics[metric]) for metric in METRICS)] for name, point in points.items()]
    table = markdown_table(["", *METRICS], rows)
    return (
        f"Without guidance, at T = {last.temperature:g}, on {last.n_prompts} prompts × {last.n_samples} samples "
        f"(protocol `{last.protocol}`, seed {last.seed}): means over prompts, with 95 % bootstrap intervals. "
        f"EvaluationModels: `{last.scorers}`.\n\n{table}"
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
            f"These weights inherit the licence of their base model, `{name or base}`, which was not found here. "
            "MusicGen's published weights are CC-BY-NC-4.0."
        )
    return f"These weights derive from `{name or base}`, and inherit its licence: {licence}."
