"""The recipe and the card of a merged model: its sources, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

from qd.models.checkpoints.fingerprint import stored_fingerprint
from qd.models.checkpoints.safetensors_files import read_header
from qd.models.merging.sources import RECIPE, Source
from qd.report.cards.model import README, front_matter, origin, usage

_CARD = """# {name}: a merged model

{sum}

The sum was computed in float32, tensor by tensor. Tensors that are equal in all models were copied, including the text
encoder and the codec. If one weight is 1 and all others are 0, the whole model is a copy.

{use}
## How it was made

- Command: `{command}`
- Weights stored as: {dtypes}
- Measured quality: none, unless stated below

| model | weight | fingerprint |
|---|---|---|
{rows}

The weights inherit the licences of the models above: the built-in ones are Apache-2.0, MusicGen's published weights
CC-BY-NC-4.0.

`recipe.yaml` has the full fingerprints, the versions of the libraries, and the recipe of each model that has one.
"""


def write_recipe(folder: Path, name: str, sources: Sequence[Source], lam: float | None) -> None:
    """Writes ``recipe.yaml`` and ``README.md`` next to the merged weights.

    Args:
        folder: Folder of the weights, which may be a temporary one.
        name: Name of the model.
        sources: The merged models and their weights.
        lam: λ, if two models were interpolated.
    """
    recipe = {
        "kind": "merge",
        "lam": lam,
        "models": [
            {
                "model": source.label,
                "weight": source.weight,
                "fingerprint": stored_fingerprint(source.tensors),
                "recipe": source.recipe,
            }
            for source in sources
        ],
        "versions": {package: version(package) for package in ("qd", "torch", "safetensors")},
    }
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    (folder / RECIPE).write_text(text, encoding="utf-8")
    rows = [f"| `{row['model']}` | {row['weight']:g} | {row['fingerprint'][:16]} |" for row in recipe["models"]]
    card = _CARD.format(
        name=name,
        sum=" + ".join(f"{source.weight:g} · {source.label}" for source in sources),
        command=_command(sources, lam),
        dtypes=", ".join(_dtypes(folder)),
        rows="\n".join(rows),
        use=usage(folder),
    )
    head = front_matter([origin(str(source.folder)) for source in sources])
    (folder / README).write_text(head + card, encoding="utf-8")


def _command(sources: Sequence[Source], lam: float | None) -> str:
    """The command that makes the model again from the same folders."""
    if lam is None:
        models = " ".join(f"{source.label}:{source.weight!r}" for source in sources)
        variables = f"MODELS={shlex.quote(models)}"
    else:
        a, b = (shlex.quote(source.label) for source in sources)
        variables = f"A={a} B={b} LAMBDA={lam!r}"
    outside = any(not 0 <= source.weight <= 1 for source in sources)
    return f"make merge {variables}{' EXTRAPOLATE=1' if outside else ''}"


def _dtypes(folder: Path) -> list[str]:
    """The stored floating-point types, the most frequent first."""
    headers = [read_header(file) for file in sorted(folder.rglob("*.safetensors"))]
    dtypes = [
        tensor.dtype for header in headers for tensor in header.tensors.values() if tensor.dtype.is_floating_point
    ]
    return [str(dtype).removeprefix("torch.") for dtype in sorted(set(dtypes), key=dtypes.count, reverse=True)]
