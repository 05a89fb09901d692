"""Bad inputs: damaged runs and caches, and the page of a report."""

# ruff: noqa: E501 (a bad input and its facts are one line)
from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from experiments.fault_attempt import CANARY, Content, bad
from experiments.fault_case import Fault
from experiments.fault_models import SAMPLE

SCRIPT = "<script>alert(1)</script>"


class Executed:
    """Its pickle makes a file when it is loaded."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(CANARY),)


def checkpoint(change: Callable[[dict], object]) -> bytes:
    """A checkpoint of Lightning's shape."""
    content = {
        "state_dict": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "loops": {},
        "callbacks": {},
        "global_step": 1,
    }
    change(content)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


CHECKPOINTS: dict[str, tuple[Content, tuple[str, ...]]] = {
    "an empty file": (b"", ("is empty",)),
    "a text": ("hello\n", ("no checkpoint",)),
    "the start of an archive": (b"PK\x03\x04", ("cut",)),
    "a cut file": (checkpoint(lambda content: None)[:300], ("cut",)),
    "a folder": (lambda path: path.mkdir(), ("folder",)),
    "a device": (lambda path: path.symlink_to("/dev/zero"), ()),
    "a pipe that nobody writes": (lambda path: os.mkfifo(path), ()),
    "a pickle that runs code": (pickle.dumps(Executed()), ("no checkpoint",)),
    "an archive that runs code": (_archive(), ("no checkpoint",)),
    "no step": (checkpoint(lambda content: content.pop("global_step")), ("global_step",)),
    "a step of text": (checkpoint(lambda content: content.update(global_step="1")), ("global_step",)),
    "no optimiser": (checkpoint(lambda content: content.pop("optimizer_states")), ("optimizer_states",)),
    "no tensor": (checkpoint(lambda content: None), ("tensors are missing",)),
}
"""Content of last.ckpt, and facts of the answer."""


def run_files(change: Callable[[str], str | bytes] = str) -> dict[str, Content]:
    """A run folder with its config, changed."""

    def make(path: Path) -> None:
        from qd.config.loading import load_config, to_yaml
        from qd.config.train import TrainConfig

        config = load_config(TrainConfig, "train", None, ["beta=0", "trainer.max_steps=2", "trainer.device=cpu"])
        config = replace(config, name="x", trainer=replace(config.trainer, runs="runs"))
        text = change(to_yaml(config))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return {"runs/x/config.yaml": make}


CONFIGS: dict[str, tuple[Callable[[str], str | bytes], tuple[str, ...]]] = {
    "an empty file": (lambda text: "", ("incomplete",)),
    "the first half": (lambda text: text[: len(text) // 2], ("config.yaml", "line")),
    "no last letter": (lambda text: text.rstrip("\n")[:-1], ()),
    "no last line": (lambda text: text[: text.rstrip("\n").rindex("\n") + 1], ("incomplete",)),
    "a line that is no YAML": (lambda text: text + "a: [\n", ("cannot be read",)),
    "a secret": (lambda text: text + "extra: ${oc.env:HOME}\n", ("not read",)),
    "an unknown setting": (lambda text: text + "extra: 1\n", ("extra",)),
    "zero bytes": (lambda text: bytes(len(text)), ("config.yaml",)),
    "no UTF-8": (lambda text: text.encode() + b"# caf\xe9\n", ("config.yaml",)),
}
"""Change of the text of config.yaml, and facts of the answer."""


def library_cache(path: Path) -> None:
    """Makes a cache whose compiled loop is cut: every name that the loop can have is a damaged file."""
    from qd.models.sampling.compiled import find_compiler, library_file

    path.mkdir(parents=True)
    if command := find_compiler():
        file = library_file(command, path)
        file.write_bytes(b"\x7fELF")
        file.with_name(file.name + ".sha256").write_text("0" * 64 + "\n")


def hostile_points(path: Path) -> None:
    """Makes a results file of five points whose names, prompts and scorers are HTML."""
    from qd.evaluation.columns import METRICS
    from qd.evaluation.measurement import Measurement
    from qd.evaluation.points import Point
    from qd.evaluation.results import Results

    results = Results(path)
    prompts = tuple(f"{SCRIPT}{number}" for number in range(8))
    for number in range(5):
        values = {name: np.linspace(0, 0.1, 8) + 0.1 * number for name in METRICS}
        measurement = Measurement(
            prompts=prompts, per_prompt=values, cross_prompt_bound=0.9, audio=np.zeros((2, 2, 800), np.float32),
            sample_rate=16_000, seconds=1.0, fad=None,
        )  # fmt: skip
        results.save(f"{number:016x}", measurement)
        results.points.append(
            Point(
                key=f"{number:016x}", run=SCRIPT, model=f"{SCRIPT}{number}", step=0, beta=None, guidance_scale=float(number + 1),
                negative=SCRIPT, temperature=1.0, lam=number / 4 if number < 3 else None, seed=0, protocol="full", scorers=SCRIPT, n_prompts=8,
                n_samples=2, metrics=measurement.intervals(), seconds=1.0, series="slider" if number < 3 else "guidance-base",
            )
        )  # fmt: skip


def faults() -> Iterator[Fault]:
    """Yields the damaged runs and caches, and the hostile page."""
    for name, (content, facts) in CHECKPOINTS.items():
        yield bad("damaged last.ckpt", name, "train --resume runs/x", "runs/x/last.ckpt", *facts,
                  files={**run_files(), "runs/x/last.ckpt": content})  # fmt: skip
    for name, (change, facts) in CONFIGS.items():
        yield bad("damaged config.yaml", name, "train --resume runs/x", *facts, files=run_files(change))
    yield bad("damaged config.yaml", "missing", "train --resume runs/x", "config.yaml", files={"runs/x/a.txt": "a"})
    yield bad("damaged config.yaml", "another setting", "train --resume runs/x beta=3", "beta is 3", "new run",
              files=run_files())  # fmt: skip
    sample = SAMPLE.replace("--model m", "--model base")
    yield bad("damaged cache", "a cut compiled loop", sample, "damaged", files={"../cache": library_cache}, status=0)
    yield bad("damaged cache", "a file in the way", sample, files={"../cache": "a"}, status=0)
    yield bad("hostile page", "names that are HTML", "report --points p.jsonl --out out", "&lt;script&gt;",
              files={"p.jsonl": hostile_points}, status=0, absent=("<script>alert",))  # fmt: skip
