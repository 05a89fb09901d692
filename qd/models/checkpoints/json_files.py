"""JSON files of a checkpoint: configs, indices, vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST_BYTES = 100 * 2**20
"""Size of the largest JSON file that is read."""


def read_object(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(
            f"'{path}' has {path.stat().st_size:,} bytes; expected a JSON object of at most {LARGEST_BYTES:,}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"'{path}' is nested too deeply; expected a JSON object: download or save it again") from None
    except ValueError as error:  # also a number of too many digits
        raise ValueError(f"'{path}' is damaged ({error}); expected a JSON object: download or save it again") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"'{path}' holds a {type(content).__name__}; expected a JSON object: download or save it again"
        )
    return content


def shard_names(index: Path) -> list[str]:
    """Returns the names of the weight files that an index lists, sorted.

    Raises:
        ValueError: the index is damaged, or names a file outside its folder.
    """
    tensors = read_object(index).get("weight_map", {})
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors.values()):
        raise ValueError(f"'{index}' has another shape: expected \"weight_map\": {{<tensor>: <file name>, …}}")
    for name in tensors.values():
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"'{index}' names the file {name!r}; expected the name of a file in the same folder")
    return sorted(set(tensors.values()))
