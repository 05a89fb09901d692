"""``make embedder-report``: how well an embedder tells held-out recordings apart, and what it hears besides them."""

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
from qd.evaluation.embedder.baselines import HOW_TO_GET_CLAP, MfccStatistics, find_clap
from qd.evaluation.embedder.figure import report_figure
from qd.evaluation.embedder.heldout import LONGEST_BUILTIN, HeldOut, open_heldout
from qd.evaluation.embedder.invariance import codec_round_trip
from qd.evaluation.embedder.measurement import EmbedderMeasurement, measure
from qd.evaluation.embedder.tables import calibration_table, invariance_table, relative_table, retrieval_table
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

![histograms of cosines, and the cosine of a clip with its altered self]({figure})

## Same recording or not?
The first clip of each of {n} recordings looks for the second among all second clips; ROC-AUC is the probability that
two clips of one recording are more alike than two of different ones. By chance: recall@1 {chance:.3f}, AUC 0.5.

{retrieval}

## What moves a clip
Mean cosine of a clip with its altered self, and 95 % bootstrap interval over the clips. Read it between the last two
rows: an alteration below "another clip of the same recording" moves a clip farther than the music's own course does.

{invariance}

Cosines of different embedders do not compare. On the scale on which a different recording is 0 and the clip itself 1:

{relative}

## What a diversity means
Diversity is the mean of 1 − cosine over pairs. Over pairs of held-out clips it is, with its 95 % interval, and between
which values 90 % of the single pairs lie:

{calibration}

## How it was measured
{notes}
"""

_METHODS = (
    "Noise is white; tempo and pitch are changed by a phase vocoder, the low-pass is a Butterworth of order 8, the "
    "codec the built-in one (25 frames of 4 codes of 9 bits a second, at 16 kHz).",
    "MFCC: mean and standard deviation of 20 coefficients and standard deviation of their deltas over time, "
    "standardised over as many clips of training recordings, then scaled to unit norm.",
    "All embedders hear the same audio; one that listens at another sample rate gets it resampled.",
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
) -> Path:
    """Measures an embedder beside MFCC statistics, and CLAP where it is present; writes ``report.md``, ``report.png``.

    Args:
        embedder: any name that ``qd.models.embedders.loading.load_embedder`` knows.
        data: ``builtin`` or what ``qd.data.library.open_recordings`` knows: a folder, a manifest, ``datasets:…``.
        n: held-out recordings, at most.
        out: folder for the files; ``runs/reports/<embedder>-<time>`` if None.
        device: see ``qd.runs.devices.resolve_device``.
        clap: folder of a CLAP model; the Hugging Face cache is looked into if None.
        validation_share: of a library's recordings, held out; no more than the embedder's training held out.

    Returns:
        The folder.

    Raises:
        ValueError: the embedder, the recordings or CLAP cannot be loaded, a number is out of its range, or a file is
            where the folder is to be.
    """
    started = time.perf_counter()
    if n < MIN_RECORDINGS:
        raise ValueError(f"n is {n}; expected {MIN_RECORDINGS} recordings or more, such as 256")
    if not 0 < validation_share < 1:
        raise ValueError(
            f"validation_share is {validation_share}; expected between 0 and 1, such as 0.05: the rest standardises "
            "the MFCC baseline"
        )
    name = _name(embedder)
    folder = Path(out) if out else Path("runs") / "reports" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if problems := folder_problems("out", folder):
        raise ConfigError(problems)
    where = resolve_device(device)
    model, beside = load_embedder(embedder), find_clap(clap)
    seconds = min(model.clip_seconds, LONGEST_BUILTIN) if data == BUILTIN else model.clip_seconds
    heldout = open_heldout(data, n, model.sample_rate, seconds, validation_share)
    if len(heldout) < MIN_RECORDINGS:
        raise ValueError(
            f"data={data!r} has {len(heldout)} held-out recordings; expected {MIN_RECORDINGS} or more: name more audio "
            f"or a larger validation_share (now {validation_share:g})"
        )
    codec = CodecRoundTrip(load_codec("base"))
    embedders: dict[str, Embedder] = {name: model.to(where)}
    embedders["MFCC"] = MfccStatistics.fit(heldout.training_clips(), heldout.sample_rate)
    if beside is not None:
        embedders["CLAP"] = beside.to(where)
    round_trip = codec_round_trip(codec, codec.codec.sample_rate, heldout.sample_rate)
    measured = measure(embedders, heldout, round_trip, where)
    facts = {
        "embedder": embedder,
        "clap": clap or CLAP,
        "device": where,
        "minutes": (time.perf_counter() - started) / 60,
    }
    return _write(folder, name, model, heldout, measured, facts)


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
        "calibration": calibration_table(measured),
        "notes": "\n".join(f"- {note}" for note in _notes(heldout, measured, facts["clap"])),
    }
    (folder / REPORT).write_text(_REPORT.format(**values), encoding="utf-8")
    return folder


def _notes(heldout: HeldOut, measured: Mapping[str, EmbedderMeasurement], clap_source: object) -> list[str]:
    clap = f"CLAP: audio embeddings of `{clap_source}`." if "CLAP" in measured else HOW_TO_GET_CLAP
    return [*_METHODS, *heldout.notes, clap]


def _name(embedder: str | Path) -> str:
    """``runs/x`` and ``runs/x/embedder`` are ``x``; none is called as a baseline is."""
    folder = Path(embedder)
    name = (folder.resolve().parent if folder.name == "embedder" and folder.is_dir() else folder.resolve()).name
    return f"{name}-embedder" if name in ("MFCC", "CLAP") else name
