"""``make fad``: how far generations are from reference recordings, as an embedder hears both."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qd.config.checks import bounded, folder_problems, one_of, positive, present_device, unreadable
from qd.config.loading import ConfigError
from qd.config.protocols import PROTOCOLS, Protocol, build_protocol
from qd.data.manifest import list_recordings, reference_paths
from qd.data.prompt_files import PromptFile
from qd.data.prompt_lengths import named_list, prompt_report, unreadable_lists
from qd.data.world.world import BUILTIN
from qd.evaluation.embed_files import embed_files
from qd.evaluation.fad_reference import embed_batches, embed_recordings, embed_windows
from qd.evaluation.measure import Sampling, generate
from qd.metrics.frechet import LEAST, FrechetAudioDistance
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.condition import text_too_long
from qd.models.embedders.loading import Embedder, load_fad_embedder
from qd.models.musicgen import MusicGen
from qd.modules.budget.memory import check_sampling_memory
from qd.runs.devices import resolve_device
from qd.runs.quiet import quieten_libraries

BATCH = 32


@dataclass(frozen=True)
class Generations:
    """How a model is asked, where it is measured without a folder of its audio.

    Attributes:
        protocol: of the evaluation, which names the prompts and how many samples each gets.
        guidance: γ, 0 or more; 1 is no guidance.
        negative_prompt: of the guidance; None is unconditional, or no guidance.
        seed: of the tokens drawn.
        prompts: a file of them, instead of the protocol's.
        clip_seconds: length of a clip; None is the protocol's.
    """

    protocol: str
    guidance: float
    negative_prompt: str | None
    seed: int
    prompts: str | None
    clip_seconds: float | None

    def listed(self) -> Protocol:
        """The prompts, the samples of each, and the length of a clip."""
        return build_protocol(self.protocol, seconds=self.clip_seconds, prompts_file=self.prompts)

    def problems(self) -> list[str]:
        """Every invalid value, one sentence each."""
        return [
            *one_of("protocol", self.protocol, PROTOCOLS),
            *bounded("guidance", self.guidance, 0),
            *(unreadable("prompts", PromptFile.parse(self.prompts)) if self.prompts else []),
            *(positive("seconds", self.clip_seconds) if self.clip_seconds is not None else []),
        ]


def fad(
    audio: str | Path | None = None,
    *,
    model: str | None = None,
    reference: str | Path = BUILTIN,
    embedder: str = BUILTIN,
    n_reference: int = 512,
    protocol: str = "full",
    prompts: str | None = None,
    guidance: float = 1.0,
    negative_prompt: str | None = "Bad audio quality.",
    seconds: float | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
) -> Path:
    """Fréchet audio distance and FAD∞ of generations; prints them, and writes them to a JSON file.

    One embedding is heard a window of the embedder's own length (a patch of 0.96 s for VGGish, 4 s for the built-in
    one), and not an average a clip.

    Args:
        audio: folder or manifest of generations.
        model: instead of ``audio``, what generates them; any name that
            ``qd.models.checkpoints.resolver.resolve_model`` knows.
        reference: folder or manifest of recordings, or ``builtin``: clean held-out pieces of the built-in world.
        embedder: ``vggish:<weights file>``, or any name that ``qd.models.embedders.loading.load_embedder`` knows.
        n_reference: pieces of the built-in reference.
        protocol, guidance, negative_prompt, seconds: how ``model`` is asked, for clips of which length; None is
            the protocol's.
        prompts: a file of prompts, see ``qd.data.prompt_files``, instead of the protocol's.
        seed: of the model's tokens and of the subsets of FAD∞.
        device: see ``qd.runs.devices.resolve_device``.
        out: the JSON file, which must not exist yet; ``runs/fad/<time>.json`` if None.

    Returns:
        The file.

    Raises:
        ConfigError: settings are out of range or contradict each other, or prompts are longer than the text encoder
            reads; all are named.
        ValueError: the audio, the model or the embedder cannot be used, or there is too little audio or memory.
    """
    started = time.perf_counter()
    negative = (negative_prompt or None) if guidance != 1.0 else None
    asked = Generations(protocol, guidance, negative, seed, prompts, seconds)
    file = Path(out) if out else Path("runs") / "fad" / f"{datetime.now():%Y%m%d-%H%M%S}.json"
    if problems := [*_problems(audio, model, n_reference, seed, device, file), *asked.problems()]:
        raise ConfigError(problems)
    quieten_libraries()
    where = resolve_device(device)
    # Whatever cannot be found is told before anything is heard.
    source = _loaded(model, asked, where) if model else [entry.path for entry in list_recordings(audio)]
    recordings = reference_paths(str(reference))
    hearing = load_fad_embedder(embedder).to(where)
    known = embed_recordings(hearing, recordings, n_reference, where)
    heard = _of_model(hearing, source, asked) if model else _files(hearing, source, where)
    facts = {
        "audio": str(audio) if audio else None, "model": model, **(vars(asked) if model else {"seed": seed}),
        "reference": str(reference), "embedder": embedder, "fingerprint": fingerprint(hearing),
    }  # fmt: skip
    measured = _measure(heard, known, seed)
    print("\n".join(_told(measured)), flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {**measured, **facts, "seconds": round(time.perf_counter() - started, 1)}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file


def _problems(
    audio: str | Path | None, model: str | None, n_reference: int, seed: int, device: str, file: Path
) -> list[str]:
    problems = [
        *bounded("n_reference", n_reference, 2),
        *bounded("seed", seed, 0),
        *present_device("device", device),
    ]
    if bool(audio) == bool(model):
        problems.append(
            f"audio is {audio!r} and model is {model!r}; expected one of them: AUDIO=<folder> or MODEL=<name>"
        )
    elif str(audio) == BUILTIN:
        problems.append(
            f"audio is {BUILTIN!r}, which is a reference; expected a folder of generations, or MODEL=<name> for what "
            "generates them"
        )
    if file.exists():
        problems.append(f"out: {str(file)!r} exists already; choose another OUT, or remove it")
    problems += folder_problems("out", file.parent)
    return problems


def _loaded(model: str, asked: Generations, device: torch.device) -> MusicGen:
    """On the device, if that can hold it and what it is asked for, and its text encoder reads the prompts."""
    music, protocol, lists = MusicGen.load(model), asked.listed(), named_list(asked.prompts, None)
    negative = text_too_long(asked.negative_prompt or "", music.tokenizer)
    problems = unreadable_lists(lists, music.tokenizer)
    if problems := problems + ([f"negative_prompt has {negative}"] if negative else []):
        raise ConfigError(problems)
    print(prompt_report(lists), end="", file=sys.stderr, flush=True)
    rows = min(BATCH, protocol.n_prompts * protocol.n_samples)
    how = {"rows": rows, "seconds": protocol.seconds, "guided": asked.guidance != 1.0}
    check_sampling_memory(music, device, **how, lower=["a shorter seconds"])
    return music.to(device)


def _files(embedder: Embedder, paths: list[Path], device: torch.device) -> Tensor:
    return torch.cat(embed_files(paths, partial(embed_windows, embedder), device, "generations"))


def _of_model(embedder: Embedder, music: MusicGen, asked: Generations) -> Tensor:
    """The embeddings of what the model plays to the protocol's prompts; no audio is kept."""
    protocol = asked.listed()
    texts = protocol.prompts()
    condition = music.condition(texts)
    sampling = Sampling(
        guidance_scale=asked.guidance, negative=asked.negative_prompt, seconds=protocol.seconds, seed=asked.seed
    )
    total = len(texts) * protocol.n_samples
    rows = [range(start, min(start + BATCH, total)) for start in range(0, total, BATCH)]
    played = (
        generate(music, music.lm, condition, batch, protocol.n_samples, sampling)[0]
        for batch in track(rows, "sampling", console=Console(stderr=True), transient=True)
    )
    return embed_batches(embedder, played, music.sample_rate)


def _measure(heard: Tensor, known: Tensor, seed: int) -> dict[str, Any]:
    """The distances, and of how many embeddings."""
    for what, embeddings in {"generations": heard, "reference": known}.items():
        if len(embeddings) < LEAST:
            raise ValueError(f"the {what} give {len(embeddings)} embeddings; expected {LEAST} or more: name more audio")
    metric = FrechetAudioDistance(seed)
    metric.update(heard, real=False)
    metric.update(known, real=True)
    counts = {"n": len(heard), "n_reference": len(known), "width": heard.shape[1]}
    return {**{name: float(value) for name, value in metric.compute().items()}, **counts}


def _told(measured: dict[str, Any]) -> list[str]:
    """What is printed."""
    lines = [
        f"FAD {measured['fad']:.4f} of n = {measured['n']:,} embeddings of width {measured['width']} against "
        f"{measured['n_reference']:,}",
        f"FAD∞ {measured['fad_inf']:.4f}, the line over 1/n explains R² = {measured['r2']:.3f}",
    ]
    if min(measured["n"], measured["n_reference"]) <= 2 * measured["width"]:
        lines.append(
            "few embeddings for so wide an embedder: the bias is large, and no line over 1/n; compare with other FADs "
            "of the same n only"
        )
    return lines
