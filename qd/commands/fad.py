"""``make fad``: Fréchet and kernel audio distance of generations to reference recordings."""

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
from qd.data.world.captions import NEGATIVE_PROMPT
from qd.data.world.world import BUILTIN
from qd.evaluation.embed_files import embed_files
from qd.evaluation.fad_reference import embed_batches, embed_recordings, embed_windows
from qd.evaluation.measure import Sampling, generate
from qd.metrics.frechet import MIN_SAMPLES, FrechetAudioDistance
from qd.metrics.kernel import kernel_audio_distance
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.condition import text_too_long
from qd.models.embedders.loading import Embedder, load_fad_embedder
from qd.models.musicgen import MusicGen
from qd.modules.budget.memory import check_sampling_memory
from qd.runs.devices import resolve_device

BATCH = 32


@dataclass(frozen=True)
class Generations:
    """Settings with which a model generates the audio to measure.

    Attributes:
        protocol: Evaluation protocol, with prompts and samples per prompt.
        guidance: γ, 0 or more; 1 is no guidance.
        negative_prompt: Negative prompt of the guidance; None is unconditional, or no guidance.
        seed: Seed for token sampling.
        prompts: File of prompts, instead of the protocol's.
        clip_seconds: Length of a clip; None for the protocol's.
    """

    protocol: str
    guidance: float
    negative_prompt: str | None
    seed: int
    prompts: str | None
    clip_seconds: float | None

    def build(self) -> Protocol:
        """Returns the protocol with these prompts and clip length."""
        return build_protocol(self.protocol, seconds=self.clip_seconds, prompts_file=self.prompts)

    def problems(self) -> list[str]:
        """Returns one sentence for each invalid value."""
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
    negative_prompt: str | None = NEGATIVE_PROMPT,
    seconds: float | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
) -> Path:
    """Measures the Fréchet audio distance, FAD∞ and the kernel audio distance; prints them and writes a JSON file.

    Each window of the embedder's own length has one embedding (0.96 s for VGGish, 4 s for the built-in embedder); a
    clip has no average.

    Args:
        audio: Folder or manifest of generations.
        model: Model that generates the audio, instead of ``audio``; any name for
            ``qd.models.checkpoints.resolver.resolve_model``.
        reference: Folder or manifest of recordings, or ``builtin``: clean held-out pieces of the built-in world.
        embedder: ``vggish:<weights file>``, or any name for ``qd.models.embedders.loading.load_embedder``.
        n_reference: Number of pieces of the built-in reference.
        protocol: Evaluation protocol for ``model``.
        prompts: File of prompts, instead of the protocol's; see ``qd.data.prompt_files``.
        guidance: γ for ``model``, 0 or more; 1 is no guidance.
        negative_prompt: Negative prompt of the guidance; None or empty is unconditional.
        seconds: Length of the clips of ``model``; None for the protocol's.
        seed: Seed for the tokens of ``model`` and for the subsets of FAD∞.
        device: Name for ``qd.runs.devices.resolve_device``.
        out: JSON file to write, which must not exist; ``runs/fad/<time>.json`` if None.

    Returns:
        The JSON file.

    Raises:
        ConfigError: Settings are out of range or contradict each other, or prompts are too long; the message lists
            all.
        ValueError: The audio, the model or the embedder cannot be used, or there is too little audio or memory.
    """
    started = time.perf_counter()
    negative = (negative_prompt or None) if guidance != 1.0 else None
    settings = Generations(protocol, guidance, negative, seed, prompts, seconds)
    file = Path(out) if out else Path("runs") / "fad" / f"{datetime.now():%Y%m%d-%H%M%S}.json"
    if problems := [*_problems(audio, model, n_reference, seed, device, file), *settings.problems()]:
        raise ConfigError(problems)
    where = resolve_device(device)
    # A missing model or recording is an error before anything is embedded.
    source = _load_model(model, settings, where) if model else [entry.path for entry in list_recordings(audio)]
    recordings = reference_paths(str(reference))
    fad_embedder = load_fad_embedder(embedder).to(where)
    known = embed_recordings(fad_embedder, recordings, n_reference, where)
    if model:
        generated = _embed_generations(fad_embedder, source, settings)
    else:
        generated = torch.cat(embed_files(source, partial(embed_windows, fad_embedder), where, "generations"))
    facts = {
        "audio": str(audio) if audio else None, "model": model, **(vars(settings) if model else {"seed": seed}),
        "reference": str(reference), "embedder": embedder, "fingerprint": fingerprint(fad_embedder),
    }  # fmt: skip
    measured = _measure(generated, known, seed)
    print("\n".join(_report(measured)), flush=True)
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
            f"audio is {BUILTIN!r}, which is a reference; expected a folder of generations, or the model that "
            "generates them: MODEL=<name>"
        )
    if file.exists():
        problems.append(f"out: {str(file)!r} exists already; choose another OUT, or remove it")
    problems += folder_problems("out", file.parent)
    return problems


def _load_model(model: str, settings: Generations, device: torch.device) -> MusicGen:
    """Loads the model onto the device, after checks of prompt lengths and memory."""
    music, protocol, lists = MusicGen.load(model), settings.build(), named_list(settings.prompts, None)
    negative = text_too_long(settings.negative_prompt or "", music.tokenizer)
    problems = unreadable_lists(lists, music.tokenizer)
    problems += [f"negative_prompt has {negative}"] if negative else []
    if problems:
        raise ConfigError(problems)
    print(prompt_report(lists), end="", file=sys.stderr, flush=True)
    rows = min(BATCH, protocol.n_prompts * protocol.n_samples)
    size = {"rows": rows, "seconds": protocol.seconds, "guided": settings.guidance != 1.0}
    check_sampling_memory(music, device, **size, lower=["a shorter seconds"])
    return music.to(device)


def _embed_generations(embedder: Embedder, music: MusicGen, settings: Generations) -> Tensor:
    """Samples the protocol's prompts and embeds the clips, without saving them."""
    protocol = settings.build()
    texts = protocol.prompts()
    condition = music.condition(texts)
    sampling = Sampling(
        guidance_scale=settings.guidance,
        negative=settings.negative_prompt,
        seconds=protocol.seconds,
        seed=settings.seed,
    )
    total = len(texts) * protocol.n_samples
    rows = [range(start, min(start + BATCH, total)) for start in range(0, total, BATCH)]
    clips = (
        generate(music, music.lm, condition, batch, protocol.n_samples, sampling)[0]
        for batch in track(rows, "sampling", console=Console(stderr=True), transient=True)
    )
    return embed_batches(embedder, clips, music.sample_rate)


def _measure(generated: Tensor, known: Tensor, seed: int) -> dict[str, Any]:
    """The distances and the numbers of embeddings."""
    for what, embeddings in {"generations": generated, "reference": known}.items():
        if len(embeddings) < MIN_SAMPLES:
            raise ValueError(f"the {what} give {len(embeddings)} embeddings; expected {MIN_SAMPLES} or more: add audio")
    metric = FrechetAudioDistance(seed)
    metric.update(generated, real=False)
    metric.update(known, real=True)
    distances = metric.compute() | {"kad": kernel_audio_distance(generated, known)}
    counts = {"n": len(generated), "n_reference": len(known), "width": generated.shape[1]}
    return {**{name: float(value) for name, value in distances.items()}, **counts}


def _report(measured: dict[str, Any]) -> list[str]:
    """The lines to print."""
    lines = [
        f"FAD {measured['fad']:.4f} of n = {measured['n']:,} embeddings of width {measured['width']} against "
        f"{measured['n_reference']:,}",
        f"FAD∞ {measured['fad_inf']:.4f}, the line over 1/n explains R² = {measured['r2']:.3f}",
        f"KAD {measured['kad']:.4f}, without bias",
    ]
    if min(measured["n"], measured["n_reference"]) <= 2 * measured["width"]:
        lines.append(
            "there are few embeddings for their width: the bias is large and not linear in 1/n; compare only with FADs "
            "of the same n"
        )
    return lines
