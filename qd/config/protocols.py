"""Protocols of a measurement: the prompt set, the number of prompts and of samples, the clip length."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from qd.data.prompt_files import PromptFile
from qd.data.world import world


@dataclass(frozen=True)
class Protocol:
    """The conditions of a measurement; only points with the same conditions are compared.

    Attributes:
        name: Name in :data:`PROTOCOLS`.
        split: Prompt set of the built-in world.
        n_prompts: Number of prompts P.
        n_samples: Number of samples N of each prompt.
        seconds: Length of a clip in seconds.
        prompts_file: Prompts instead of the split, as ``PromptFile.parse`` reads them.
    """

    name: str
    split: str
    n_prompts: int
    n_samples: int
    seconds: float = 4.0
    prompts_file: str | None = None

    def __post_init__(self) -> None:
        if self.n_prompts < 2:
            raise ValueError(f"n_prompts is {self.n_prompts}; intervals over prompts need at least 2")
        if self.n_samples < 2:
            raise ValueError(f"n_samples is {self.n_samples}; diversity needs at least 2 samples a prompt")

    @property
    def id(self) -> str:
        """The name and all differences from it: ``quick-16x2-8s-3f2a9c01``; the last is a hash of the prompts."""
        published = PROTOCOLS[self.name]
        parts = [self.name]
        if (self.n_prompts, self.n_samples) != (published.n_prompts, published.n_samples):
            parts.append(f"{self.n_prompts}x{self.n_samples}")
        if self.seconds != published.seconds:
            parts.append(f"{self.seconds:g}s")
        if self.prompts_file is not None:
            parts.append(hashlib.sha256("\n".join(self.prompts()).encode()).hexdigest()[:8])
        return "-".join(parts)

    def prompts(self) -> list[str]:
        """The P prompts in a fixed order; a file is read once.

        Raises:
            ValueError: The file holds fewer prompts.
        """
        return list(self._texts)

    def rows(self, ranks: int) -> int:
        """Number of sequences that a rank samples for a point."""
        return -(-self.n_prompts // ranks) * self.n_samples

    @cached_property
    def _texts(self) -> Sequence[str]:
        # Cached: a long run keeps its prompts and its id even if the file is edited or removed.
        if self.prompts_file is None:
            return world.prompt_set(self.split, self.n_prompts)
        texts = PromptFile.parse(self.prompts_file).read().texts
        if len(texts) < self.n_prompts:
            raise ValueError(
                f"{self.prompts_file} holds {len(texts)} prompts, {self.n_prompts} are needed: add lines, or reduce "
                "n_prompts"
            )
        return texts[: self.n_prompts]


PROTOCOLS = {
    "quick": Protocol("quick", "development", n_prompts=32, n_samples=4),
    "full": Protocol("full", "heldout", n_prompts=world.QUALITY_PROMPTS, n_samples=4),
    "paper": Protocol("paper", "heldout", n_prompts=world.QUALITY_PROMPTS, n_samples=8),
    # As in the paper's listening test of diversity: 50 prompts, pairs of clips.
    "two-samples": Protocol("two-samples", "heldout", n_prompts=50, n_samples=2),
}


def clip_seconds(protocol: str) -> float:
    """The clip length in a :attr:`Protocol.id`; 4 s if it contains none."""
    length = re.search(r"-([0-9.e+-]+)s(?=-[0-9a-f]{8}$|$)", protocol)
    return float(length[1]) if length else Protocol.seconds


def build_protocol(
    name: str,
    *,
    n_prompts: int | None = None,
    n_samples: int | None = None,
    seconds: float | None = None,
    prompts_file: str | None = None,
) -> Protocol:
    """Returns a published protocol with the given changes; with a file, ``n_prompts`` defaults to all its prompts.

    Raises:
        ValueError: The name is unknown, a number is too small, or the file cannot be read.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown evaluation protocol {name!r}; expected one of {', '.join(PROTOCOLS)}")
    if prompts_file is not None and n_prompts is None:
        n_prompts = len(PromptFile.parse(prompts_file).read().texts)
    changes = {"n_prompts": n_prompts, "n_samples": n_samples, "seconds": seconds, "prompts_file": prompts_file}
    return replace(PROTOCOLS[name], **{key: value for key, value in changes.items() if value is not None})
