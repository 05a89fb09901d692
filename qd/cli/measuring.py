"""The commands that measure models."""

from __future__ import annotations

import argparse
from typing import Any

from qd.cli import runners as commands
from qd.cli.options import add_command


def add_evaluate(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "evaluate",
        commands.run_evaluate,
        "Measure models by the full protocol. Adds a line for each model and seed to a results file, and skips what is "
        "there.",
        "qd evaluate --model base --model 'runs/beta0:0.5 runs/beta15:0.5' --seeds 0 1",
    )
    parser.add_argument(
        "--model",
        action="append",
        help="base, a run, a folder or a hub name, or several; with weights, 'a:0.5 b:0.5', their sum; may be repeated",
    )
    parser.add_argument(
        "--guidance", dest="guidance_scale", type=float, help="γ, 0 or more; 1 is no guidance (default: 1)"
    )
    parser.add_argument(
        "--negative-prompt", help="of the guidance; '' is unconditional (default: 'Bad audio quality.')"
    )
    parser.add_argument("--extrapolate", action="store_true", help="allow weights of a sum outside 0 to 1")
    _add_measuring_options(parser)


def add_sweep(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "sweep",
        commands.run_sweep,
        "Measure every point that a config names: interpolations, guidance, temperature, soups, lists of models. Adds "
        "lines to a results file, and skips what is there: to go on after a stop, type the same command.",
        "qd sweep --config quick --only guidance-base slider",
    )
    parser.add_argument("--config", help="the name of a file in configs/sweep/, or the path of a YAML file")
    parser.add_argument("--only", nargs="+", metavar="SERIES", help="these series, by name (default: all)")
    _add_measuring_options(parser)


def _add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """What `evaluate` and `sweep` share."""
    parser.add_argument(
        "--protocol",
        help="full (101 prompts × 4 samples), paper (101 × 8), two-samples (50 × 2) or quick (32 × 4) (default: full)",
    )
    parser.add_argument("--prompts", metavar="FILE", help="as for train, instead of the protocol's own")
    parser.add_argument("--seeds", nargs="+", help="of the tokens drawn, a point for each (default: 0)")
    parser.add_argument("--temperature", type=float, help="above 0 (default: 0.99)")
    parser.add_argument("--fad", action="store_true", help="the Fréchet audio distance too, of the same audio")
    parser.add_argument(
        "--reference",
        dest="fad_reference",
        metavar="FOLDER",
        help="of the distance, which it asks for: a folder, a manifest, or builtin, clean held-out pieces (default: "
        "builtin)",
    )
    parser.add_argument(
        "--fad-embedder",
        metavar="NAME",
        help="of the distance, as for fad --embedder; asks for it too (default: builtin)",
    )
    parser.add_argument("--eval-batch-size", type=int, help="sequences sampled and heard at once (default: 32)")
    parser.add_argument("--device", help="auto, cpu, mps, cuda or cuda:<index> (default: auto)")
    parser.add_argument("--out", metavar="FILE", help="results file (default: runs/results/points.jsonl)")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the points, and the time and disk that they need, and exit"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings: adherence=clap adherence_weight=2"
    )


def add_report(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "report",
        commands.run_report,
        "Draw the paper's figures and tables from a results file. Writes PNG, SVG, Markdown, one HTML page with "
        "players, and a TensorBoard run.",
        "qd report --runs runs/beta0 runs/beta15 --only figure-3 table-1",
    )
    _add_results_options(parser)
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="folders of runs, for curves of training")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="figure-1 …, table-1 …, fronts (default: all)")
    parser.add_argument("--out", metavar="FOLDER", help="of the report (default: report, beside the results file)")


def add_pick(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "pick",
        commands.run_pick,
        "Pick a model from the measured front by the diversity or the quality that it is to have. Writes it as a "
        "folder.",
        "qd pick --diversity 0.45 --out my-model",
    )
    parser.add_argument("--diversity", type=float, help="at least so much, with the best quality")
    parser.add_argument("--quality", type=float, help="at least so much, with the most diversity")
    parser.add_argument("--allow-guidance", action="store_true", help="also models that need guidance when deployed")
    _add_results_options(parser)
    parser.add_argument("--out", metavar="FOLDER", help="to make (default: runs/picked/<wish>)")


def _add_results_options(parser: argparse.ArgumentParser) -> None:
    """What `report` and `pick` share."""
    parser.add_argument("--points", metavar="FILE", help="results file (default: runs/results/points.jsonl)")
    parser.add_argument("--protocol", help="of the points to take, where the file holds several")
    parser.add_argument("--scorers", metavar="TEXT", help="a part of their description, where the file holds several")
