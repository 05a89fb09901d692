"""The training prompts, and the batches that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from qd.config.checks import bounded, one_of, positive, unreadable
from qd.data.prompt_files import FILE_KINDS
from qd.data.prompt_sources import SOURCE_KINDS, PromptSource
from qd.data.prompts import BLOCK


@dataclass
class DataConfig:
    batch_size: int = 16  # sequences an optimiser step, over all ranks and accumulated micro-batches
    micro_batch_size: int = 16  # sequences a rank holds at once; all N samples of a prompt are in one
    prompts: list[PromptSource] = field(default_factory=lambda: [PromptSource(size=256)])  # weighted mixture

    def problems(self) -> list[str]:
        found = [
            *bounded("data.batch_size", self.batch_size, 1),
            *bounded("data.micro_batch_size", self.micro_batch_size, 1),
            *([] if self.prompts else ["data.prompts is empty; give a source, for example [{kind: builtin}]"]),
        ]
        if not found and self.batch_size % self.micro_batch_size:
            found.append(
                f"data.batch_size={self.batch_size} is no multiple of data.micro_batch_size={self.micro_batch_size}"
            )
        total = sum(source.weight for source in self.prompts)
        for i, source in enumerate(self.prompts):
            found += prompt_source_problems(f"data.prompts[{i}]", source)
            if 0 < source.weight < total / BLOCK:
                found.append(f"data.prompts[{i}].weight is {source.weight}; expected 1/{BLOCK} of all weights or more")
        return found


def prompt_source_problems(path: str, source: PromptSource) -> list[str]:
    """One sentence for each problem of a source that the setting ``path`` describes."""
    found = [
        *one_of(f"{path}.kind", source.kind, SOURCE_KINDS),
        *positive(f"{path}.weight", source.weight),
        *(bounded(f"{path}.size", source.size, 1) if source.size is not None else []),
    ]
    usable = {"path": FILE_KINDS, "column": ("csv", "jsonl")}
    unused = [name for name, kinds in usable.items() if getattr(source, name) and source.kind not in kinds]
    found += [f"{path}.{name} is given, and a source of kind {source.kind!r} has none; change one" for name in unused]
    if source.kind not in FILE_KINDS:
        return found
    if not source.path:
        return [*found, f"{path}.path is missing; a source of kind {source.kind!r} needs it"]
    return found + unreadable(path, source.file)
