"""``make embedder-report``: measures how well an embedder separates held-out recordings, and what else changes it."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import librosa
import torch
import transformers

from qd.config.checks import folder_problems
from qd.config.loading import ConfigError
from qd.data.world.world import BUILTIN
from qd.data.worlds import EDITIONS
from qd.evaluation.embedder.baselines import HOW_TO_GET_CLAP, MfccStatistics, find_clap
from qd.evaluation.embedder.figure import report_figure
from qd.evaluation.embedder.heldout import LONGEST_BUILTIN, HeldOut, open_heldout
from qd.evaluation.embedder.invariance import EQUALISER_DB, ROOM_DB, codec_round_trip
from qd.evaluation.embedder.measurement import EmbedderMeasurement, measure
from qd.evaluation.embedder.tables import (
    calibration_table,
    invariance_table,
    recall_table,
    relative_table,
    retrieval_table,
)
from qd.models.codecs.codec import load_codec
from qd.models.embedders.clap import CLAP
from qd.models.embedders.clip_embedder import ClipEmbedder
from qd.models.embedders.loading import Embedder, load_embedder
from qd.modules.embedder import CodecRoundTrip
from qd.runs.devices import resolve_device

MIN_RECORDINGS = 10
REPORT, FIGURE = "report.md", "report.png"

_REPORT = """# Embedder report: {name}

| | |
|---|---|
| embedder | `{embedder}`: {parameters:.2f} M parameters, {seconds:g} s at {rate:,} Hz → {width} numbers |
| recordings | {recordings} |
| measured | {when}, in {minutes:.1f} min on {device}; {versions} |

![histograms of cosines, and the cosine of a clip with its altered version]({figure})

## Same recording or not?
The first clip of each of {n} recordings is matched with all second clips; ROC-AUC is the probability that two clips of
one recording are more similar than two clips of different ones. By chance: recall@1 {chance:.3f}, AUC 0.5.

{retrieval}

## What changes the embedding of a clip
Mean cosine of a clip with its altered version, and 95 % bootstrap interval over the clips. Compare it with the last two
rows: an alteration below "another clip of the same recording" changes the embedding more than the music itself does.

{invariance}

Cosines of different embedders are not comparable. On the scale where a different recording is 0 and the clip itself 1:

{relative}

recall@1 as above, with the altered first clip as the query. Tempo is left out: its clips may overlap with the second
clips.

{recall}

## What a diversity means
Diversity is the mean of 1 − cosine over pairs. Its value over pairs of held-out clips, with its 95 % interval, and the
range of 90 % of the single pairs:

{calibration}

## How it was measured
{notes}
"""

_METHODS = (
    "Noise is white; tempo and pitch are changed by a phase vocoder, the low-pass is a Butterworth of order 8, the "
    f"equaliser has a random gain within ± {EQUALISER_DB:g} dB for each octave, the room is decaying noise, "
    f"{-ROOM_DB:g} dB below the music, the codec is the built-in one.",
    "MFCC: mean and standard deviation of 20 coefficients and standard deviation of their deltas over time, "
    "standardised over the same number of clips of training recordings, then scaled to unit norm.",
    "All embedders get the same audio, resampled to their own sample rate.",
)


def embedder_report(
    embedder: str | Path = BUILTIN,
    *,
    data: str = BUILTIN,
    n: int = 256,
    out: str | Path | None = None,
    device: str = "auto",
    clap: str | Path | None = None,
    validation_share: float = 0.05,
    world: int = 1,
) -> Path:
    """Compares an embedder with MFCC statistics, and with CLAP if present; writes ``report.md`` and ``report.png``.

    Args:
        embedder: Any name for ``qd.models.embedders.loading.load_embedder``.
        data: ``builtin``, or a source for ``qd.data.library.open_recordings``: a folder, a manifest, ``datasets:…``.
        n: Largest number of held-out recordings.
        out: Folder for the files; ``runs/reports/<embedder>-<time>`` if None.
        device: Name for ``qd.runs.devices.resolve_device``.
        clap: Folder of a CLAP model; None looks in the Hugging Face cache.
        validation_share: Share of a library's recordings that is held out; at most that of the embedder's training.
        world: Edition of the built-in world.

    Returns:
        The folder.

    Raises:
        ConfigError: ``out`` is a file.
        ValueError: The embedder, the recordings or CLAP cannot be loaded, or a number is out of its range.
    """
    started = time.perf_counter()
    _check(n, validation_share, world)
    name = _name(embedder)
    folder = Path(out) if out else Path("runs") / "reports" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if problems := folder_problems("out", folder):
        raise ConfigError(problems)
    where = resolve_device(device)
    model, clap_model = load_embedder(embedder), find_clap(clap)
    seconds = min(model.clip_seconds, LONGEST_BUILTIN) if data == BUILTIN else model.clip_seconds
    heldout = open_heldout(data, n, model.sample_rate, seconds, validation_share, world)
    if len(heldout) < MIN_RECORDINGS:
        raise ValueError(
            f"data={data!r} has {len(heldout)} held-out recordings; expected {MIN_RECORDINGS} or more: add audio "
            f"or set a larger validation_share (now {validation_share:g})"
        )
    codec = CodecRoundTrip(load_codec("base"))
    embedders: dict[str, Embedder] = {name: model.to(where)}
    embedders["MFCC"] = MfccStatistics.fit(heldout.training_clips(), heldout.sample_rate)
    if clap_model is not None:
        embedders["CLAP"] = clap_model.to(where)
    round_trip = codec_round_trip(codec, codec.codec.sample_rate, heldout.sample_rate)
    measured = measure(embedders, heldout, round_trip, where)
    facts = {
        "embedder": embedder,
        "clap": clap or CLAP,
        "device": where,
        "minutes": (time.perf_counter() - started) / 60,
    }
    return _write(folder, name, model, heldout, measured, facts)


def _check(n: int, validation_share: float, world: int) -> None:
    """Raises ValueError if a number is out of its range."""
    if n < MIN_RECORDINGS:
        raise ValueError(f"n is {n}; expected {MIN_RECORDINGS} recordings or more, such as 256")
    if not 0 < validation_share < 1:
        raise ValueError(
            f"validation_share is {validation_share}; expected between 0 and 1, such as 0.05: the rest "
            "standardises the MFCC baseline"
        )
    if world not in EDITIONS:
        raise ValueError(
            f"world is {world}; expected an edition of the built-in world: {', '.join(map(str, EDITIONS))}"
        )


def _write(
    folder: Path,
    name: str,
    model: ClipEmbedder,
    heldout: HeldOut,
    measured: Mapping[str, EmbedderMeasurement],
    facts: dict[str, object],
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    report_figure(measured, heldout.description.replace("`", "")).savefig(folder / FIGURE, dpi=150)
    values = {
        **facts,
        "name": name,
        "parameters": sum(weight.numel() for weight in model.parameters()) / 1e6,
        "seconds": model.clip_seconds,
        "rate": model.sample_rate,
        "width": model.embedding_width,
        "recordings": heldout.description,
        "n": len(heldout),
        "chance": 1 / len(heldout),
        "when": f"{datetime.now():%Y-%m-%d}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, librosa {librosa.__version__}, "
        f"transformers {transformers.__version__}",
        "figure": FIGURE,
        "retrieval": retrieval_table(measured),
        "invariance": invariance_table(measured),
        "relative": relative_table(measured),
        "recall": recall_table(measured),
        "calibration": calibration_table(measured),
        "notes": "\n".join(f"- {note}" for note in _notes(heldout, measured, facts["clap"])),
    }
    (folder / REPORT).write_text(_REPORT.format(**values), encoding="utf-8")
    return folder


def _notes(heldout: HeldOut, measured: Mapping[str, EmbedderMeasurement], clap_source: object) -> list[str]:
    clap = f"CLAP: audio embeddings of `{clap_source}`." if "CLAP" in measured else HOW_TO_GET_CLAP
    return [*_METHODS, *heldout.notes, clap]


def _name(embedder: str | Path) -> str:
    """Name in the report: ``x`` for ``runs/x`` and ``runs/x/embedder``, and never the name of a baseline."""
    folder = Path(embedder)
    name = (folder.resolve().parent if folder.name == "embedder" and folder.is_dir() else folder.resolve()).name
    return f"{name}-embedder" if name in ("MFCC", "CLAP") else name
