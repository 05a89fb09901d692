"""``make train-preference``: trains a preference scorer on the ratings of listeners."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from qd.audio.resample import resample
from qd.config.checks import new_place_problems, present_device
from qd.config.loading import ConfigError
from qd.data.comparisons import Comparisons, Split, comparisons, split_recordings
from qd.data.ratings import Ratings, read_ratings
from qd.evaluation.embed_files import embed_files
from qd.metrics.bootstrap import Interval
from qd.metrics.preference import agreement, pairwise_accuracy
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.loading import Embedder, load_embedder
from qd.modules.preference import FitResult, HeadFit, fit_head, log_loss, logits
from qd.report.cards.preference import CHANCE_LOG_LOSS, Learned, write_card
from qd.runs.atomic import atomic_folder
from qd.runs.devices import resolve_device
from qd.runs.printable import printable
from qd.scorers.affine import affine
from qd.scorers.preference import PreferenceScorer


def train_preference(
    data: str | Path,
    embedder: str = "builtin-heldout",
    *,
    out: str | Path | None = None,
    validation_share: float = 0.2,
    head_width: int = 128,
    max_steps: int = HeadFit.max_steps,
    learning_rate: float = HeadFit.learning_rate,
    weight_decay: float = HeadFit.weight_decay,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Fits a Bradley–Terry head over a frozen embedder to ratings, and writes it as a preference scorer.

    Args:
        data: File of ratings; see :mod:`qd.data.ratings`.
        embedder: Any name for ``qd.models.embedders.loading.load_embedder``.
        out: Folder for the scorer, which must not exist; ``runs/preference/<embedder>-<time>`` if None.
        validation_share: Share of the recordings that is held out.
        head_width: Width of the hidden layer of the head.
        max_steps: Optimiser steps of the fit; see :class:`HeadFit`.
        learning_rate: Learning rate of the fit.
        weight_decay: Weight decay of the fit.
        seed: Seed for the split, the initial weights and the batches.
        device: Device of the embedder; see ``qd.runs.devices.resolve_device``.

    Returns:
        The folder: config.json, model.safetensors, metrics.json and README.md (the card).

    Raises:
        ConfigError: Settings are out of range, or the folder exists; the message lists all.
        ValueError: The ratings, the recordings or the embedder cannot be used.
    """
    started = time.perf_counter()
    fit = HeadFit(max_steps, learning_rate=learning_rate, weight_decay=weight_decay, seed=seed)
    folder = Path(out) if out else _default_folder(embedder)
    if problems := _problems(fit, folder, validation_share, head_width, device):
        raise ConfigError(problems)
    ratings = read_ratings(data)
    split = split_recordings(ratings, validation_share, seed)
    model = load_embedder(embedder).to(resolve_device(device))
    embeddings = _embed(model, ratings, resolve_device(device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scorer = PreferenceScorer.over(model.cpu(), embedder, head_width)
    learned = _fit(scorer, embeddings, ratings, split, fit)
    print(printable("\n".join(_report(learned))), flush=True)
    facts = {
        "data": str(data), "embedder": embedder, "fingerprint": fingerprint(model), "head_width": head_width,
        "validation_share": validation_share, "device": device, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    with atomic_folder(folder) as temporary:
        scorer.save_pretrained(temporary)
        write_card(temporary, facts, fit, ratings, learned, scorer.config)
    return folder


def _default_folder(embedder: str) -> Path:
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(embedder).name)
    return Path("runs") / "preference" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _problems(fit: HeadFit, folder: Path, validation_share: float, head_width: int, device: str) -> list[str]:
    problems = [*fit.problems(), *present_device("device", device)]
    if not 0 < validation_share < 1:
        problems.append(f"validation_share is {validation_share}; expected between 0 and 1, such as 0.2")
    if head_width < 1:
        problems.append(f"head_width is {head_width}; expected 1 or more, such as 128")
    return problems + new_place_problems("out", folder)


def _embed(embedder: Embedder, ratings: Ratings, device: torch.device) -> Tensor:
    """Embeds each recording; returns ``(recordings, width)``."""

    def embed(audio: Tensor, rate: int) -> Tensor:
        return embedder(resample(audio, rate, embedder.sample_rate))

    return torch.cat(embed_files(ratings.paths, embed, device, "rated recordings"))


def _fit(scorer: PreferenceScorer, embeddings: Tensor, ratings: Ratings, split: Split, fit: HeadFit) -> Learned:
    """Fits the head, scales scores of rated recordings to mean 0 and standard deviation 1, and measures the scorer."""
    known, held_out = comparisons(ratings, ~split.held_out), comparisons(ratings, split.held_out)
    everything = comparisons(ratings)
    fitted: FitResult = fit_head(scorer.head, embeddings, known, held_out, fit)
    scores = logits(scorer.head, embeddings)
    scorer.config.scale, scorer.config.offset = affine(scores, 1.0)
    decided = everything.decided
    return Learned(
        learned=known,
        held_out=held_out,
        left_out=_crossing(ratings, split, everything),
        held_out_recordings=int(split.held_out.sum()),
        accuracy=_accuracy(scores, held_out, split),
        learned_accuracy=_accuracy(scores, known, split).mean,
        log_loss=log_loss(scores, held_out),
        agreement=agreement(everything.first[decided], everything.second[decided], everything.preferred[decided]),
        step=fitted.step,
    )


def _crossing(ratings: Ratings, split: Split, everything: Comparisons) -> int:
    """Number of comparisons between the two parts of the split, which are not used.

    Absolute ratings allow any number of comparisons, so none is lost.
    """
    if ratings.kind == "absolute":
        return 0
    return int((split.held_out[everything.first] != split.held_out[everything.second]).sum())


def _accuracy(scores: Tensor, compared: Comparisons, split: Split) -> Interval:
    rows = compared.decided
    first, second = compared.first[rows], compared.second[rows]
    margin = (scores[first] - scores[second]).numpy()
    return pairwise_accuracy(margin, compared.preferred[rows], split.unit[first], split.unit[second])


def _report(learned: Learned) -> list[str]:
    """The lines to print."""
    accuracy, limit = learned.accuracy, learned.agreement
    between = f"; {learned.left_out:,} between both parts are not used" if learned.left_out else ""
    ceiling = f", at most {limit.ceiling:.3f} because listeners disagree" if limit and limit.rate < 1 else ""
    lines = [
        f"learned from {len(learned.learned):,} comparisons; {len(learned.held_out):,} of "
        f"{learned.held_out_recordings:,} other recordings were held out{between}",
        f"held-out accuracy {accuracy.mean:.3f} [{accuracy.lo:.3f}, {accuracy.hi:.3f}], chance 0.500{ceiling}",
        f"held-out log loss {learned.log_loss:.3f}, chance {CHANCE_LOG_LOSS:.3f} (step {learned.step})",
    ]
    if learned.log_loss >= CHANCE_LOG_LOSS:
        lines.append("the scorer learned nothing that applies to other recordings: rate more, or try another embedder")
    return lines
