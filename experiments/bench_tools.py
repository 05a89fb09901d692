"""Shared by the benchmarks: timing in turn, machine rates, the library's sampler, and the results tables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import EncodecConfig, EncodecModel, MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from qd.metrics.formatting import markdown_table
from qd.models.condition import Condition
from qd.models.musicgen import MusicGen

Work = Callable[[], object]

BEGIN, END = "<!-- measured by make bench -->", "<!-- end of what was measured -->"
WHOLE = "whole step"
RUN = "default run"
SCORING = "KL and log-probabilities"

COLUMNS = ["reference", "ours", "times faster", "floor", "over the floor", "GFLOP/s", "reference MiB", "MiB", "slope"]

GUIDED_LOOP, LOOP, STEP = "token loop, 32 × 4 s, guidance 3", "token loop, 32 × 4 s, guidance 1", "training step of 16"
TIMES_FASTER, ROLLOUT_SHARE, MEMORY_SHARE, MINUTES = 4.0, 0.5, 0.5, 40.0
STEP_GFLOP = 240.0
"""Limit of a step, in 10⁹ operations at the rate of a 2048² float32 product: 1 s at 240 GFLOP/s."""


def alternate(
    programs: dict[str, Work], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each program. They run in turn (A B A B …); the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats + 1):
        for name, work in programs.items():
            start = clock()
            work()
            times[name].append(clock() - start)
    return {name: median(values[1:]) for name, values in times.items()}


class MachineRates(NamedTuple):
    """Speed of the machine during a measurement.

    Attributes:
        flops: Operations a second of a 2048² float32 product (a multiply-add counts as two).
        half_flops: The same in bfloat16.
        bandwidth: Bytes a second of a copy, read and written.
    """

    flops: float
    half_flops: float
    bandwidth: float


def alternate_with_rates(programs: dict[str, Work], repeats: int) -> tuple[dict[str, float], MachineRates]:
    """:func:`alternate`, and the machine's rates from the same rounds, because other load slows both alike."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    source, target = torch.randn(2**25), torch.empty(2**25)
    probes = {
        "float32 product": lambda: a @ b,
        "bfloat16 product": lambda: half_a @ half_b,
        "copy": lambda: target.copy_(source),
    }
    times = alternate({**programs, **probes}, repeats)
    product, half, copy = (times.pop(name) for name in probes)
    return times, MachineRates(2 * 2048**3 / product, 2 * 2048**3 / half, 2 * 4 * 2**25 / copy)


def flops_of(work: Work) -> int:
    """Operations of the matrix products, convolutions and attention that run in torch."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def library_tokens(music: MusicGen) -> Callable[[Condition, int, float], object]:
    """The library's ``generate`` on the same decoder, with a codec that does nothing."""
    config = EncodecConfig(upsampling_ratios=[2], codebook_size=music.lm.codebook_size, hidden_size=8, num_filters=2)
    model = MusicgenForConditionalGeneration(
        text_encoder=music.text_encoder, audio_encoder=EncodecModel(config), decoder=music.lm.decoder
    ).eval()
    model.to(music.lm.decoder.device, music.lm.decoder.dtype).set_attn_implementation({"decoder": "sdpa"})
    pad, books = music.lm.pad, music.lm.codebooks
    model.generation_config.update(decoder_start_token_id=pad, pad_token_id=pad, bos_token_id=pad)
    model.audio_encoder.decode = lambda codes, *_, **__: SimpleNamespace(audio_values=codes[0].float())

    def generate(condition: Condition, frames: int, scale: float) -> object:
        batch, guided = len(condition), scale != 1
        both = condition.cat(music.null_condition(batch)) if guided else condition
        return model.generate(
            decoder_input_ids=torch.full((batch * books, 1), pad, device=condition.states.device),
            encoder_outputs=BaseModelOutput(both.states.clone()),
            attention_mask=both.mask.long(),
            max_length=frames + books,
            guidance_scale=scale if guided else None,
            do_sample=True,
            top_k=0,
            num_return_sequences=1,
        )

    return generate


def row(work: str, gflops: float | None = None, **values: float) -> dict[str, Any]:
    """A row of the table, with the ratios that follow from its ``reference``, ``ours`` and ``floor`` seconds.

    Args:
        work: Name of the row.
        gflops: Rate of a 2048² float32 product in GFLOP/s, measured in the same rounds.
        values: Seconds by column.
    """
    ratio = {"times faster": values["reference"] / values["ours"]} if "reference" in values else {}
    distance = {"over the floor": values["ours"] / values["floor"]} if "floor" in values else {}
    rate = {} if gflops is None else {"GFLOP/s": gflops}
    return {"work": work, **values, **ratio, **distance, **rate}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[r["work"], *(_cell(column, r.get(column)) for column in COLUMNS)] for r in rows]
    return markdown_table(["seconds of", *COLUMNS], cells)


def goals_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each goal next to its measurement; a goal whose row is missing is marked "not measured"."""
    goals = [_loop_goal(rows, LOOP), _loop_goal(rows, GUIDED_LOOP), *_step_goals(rows)]
    goals += [_memory_goal(rows), _run_goal(rows)]
    return markdown_table(["aim", "measured", "met"], goals)


def check_page(path: Path, begin: str = BEGIN, end: str = END) -> None:
    """Raises ``ValueError`` unless the page has both marks, once each and in order."""
    text = path.read_text() if path.is_file() else ""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"page {path}: expected a file with the lines {begin!r} and {end!r}, once each, in this order")


def update_page(path: Path, measured: str, begin: str = BEGIN, end: str = END) -> None:
    """Replaces the text between the two marks of the page."""
    check_page(path, begin, end)
    text = path.read_text()
    before, after = text[: text.index(begin)], text[text.index(end) :]
    path.write_text(f"{before}{begin}\n\n{measured.strip()}\n\n{after}")


def _cell(column: str, value: float | None) -> str:
    """Three significant digits; values of 100 and more without decimals."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or column.endswith("MiB") else f"{value:.3g}"


def _find(rows: Sequence[Mapping[str, Any]], start: str, end: str = "") -> Mapping[str, Any] | None:
    return next((r for r in rows if r["work"].startswith(start) and r["work"].endswith(end)), None)


def _goal(aim: str, measured: str | None, met: bool = False) -> list[str]:
    return [aim, "not measured", ""] if measured is None else [aim, measured, "yes" if met else "no"]


def _loop_goal(rows: Sequence[Mapping[str, Any]], work: str) -> list[str]:
    aim, loop = f"{work}: at least {TIMES_FASTER:g} times as fast as `generate`", _find(rows, work)
    if loop is None:
        return _goal(aim, None)
    return _goal(aim, f"{loop['times faster']:.2f} times", loop["times faster"] >= TIMES_FASTER)


def _step_goals(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    whole, rollout = _find(rows, STEP, WHOLE), _find(rows, STEP, "rollout")
    aim, share_aim = "default training step: at most", f"rollout, share of the step: at most {ROLLOUT_SHARE:.0%}"
    if whole is None or rollout is None:
        return [_goal(f"{aim} {STEP_GFLOP:g} s / (GFLOP/s)", None), _goal(share_aim, None)]
    allowed = STEP_GFLOP / whole["GFLOP/s"]
    share = rollout["ours"] / whole["ours"]
    return [
        _goal(f"{aim} {allowed:.2f} s here", f"{whole['ours']:.2f} s", whole["ours"] <= allowed),
        _goal(share_aim, f"{share:.0%}", share <= ROLLOUT_SHARE),
    ]


def _memory_goal(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    aim, scoring = f"{SCORING}: at most half the peak memory of the plain form, equal gradients", _find(rows, SCORING)
    if scoring is None:
        return _goal(aim, None)
    share, norms = scoring["MiB"] / scoring["reference MiB"], zip(*scoring["gradient norms"], strict=True)
    equal = all(math.isclose(plain, ours, rel_tol=1e-4) for plain, ours in norms)
    memory = f"{scoring['MiB']:,.0f} of {scoring['reference MiB']:,.0f} MiB, {share:.0%}"
    return _goal(aim, f"{memory}, gradients {'equal' if equal else 'differ'}", share <= MEMORY_SHARE and equal)


def _run_goal(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    aim, run = f"default run with its measurements: at most {MINUTES:g} minutes", _find(rows, RUN)
    if run is None:
        return _goal(aim, None)
    minutes = run["ours"] / 60
    return _goal(aim, f"{minutes:.0f} minutes, a sum", minutes <= MINUTES)
