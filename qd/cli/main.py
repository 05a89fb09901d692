"""The command line ``qd <command>``: parse, then run the function of :mod:`qd.cli.runners`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from qd.cli import runners as commands
from qd.cli.judging import add_fad, add_scorer_ranges, add_train_preference
from qd.cli.measuring import add_evaluate, add_pick, add_report, add_sweep
from qd.cli.options import MODELS, add_command, add_sampling
from qd.runs.process_rank import first_of_machine, first_process, rank_number

INTERRUPTED = 130  # the exit status of a program that Ctrl-C stopped
BAD_INPUT = 2
SHARED = ("train", "train-embedder", "evaluate", "sweep")  # commands whose work several processes share
OF_SEVERAL = ("seeds", "only")  # options of several values in commands that take overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 for bad input (told in one message), 130 after Ctrl-C."""
    parser = build_parser()
    options = _parse(parser, arguments)
    if options.command not in SHARED and not first_process():
        print(
            f"qd {options.command}: one process does it all, the first; rank {rank_number()} ends here", file=sys.stderr
        )
        return 0
    try:
        options.run(options)
    except ValueError as error:
        _tell(options.command, error)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print(f"qd {options.command}: stopped by Ctrl-C{f'; {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return INTERRUPTED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="qd",
        description="Diversity-rewarded distillation of classifier-free guidance for text-to-music models.",
        epilog="`qd <command> --help` explains a command.",
        allow_abbrev=False,
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="<command>")
    for add in (
        _add_train,
        _add_train_embedder,
        _add_embedder_report,
        add_scorer_ranges,
        add_train_preference,
        add_fad,
        add_evaluate,
        add_sweep,
        add_report,
        add_pick,
        _add_sample,
        _add_merge,
        _add_ship,
        _add_base,
    ):
        add(parsers)
    return parser


def _tell(command: str, error: ValueError) -> None:
    """Every process of a run tells what stopped it, by its number, so that nothing is lost; but what is wrong with the
    config, which all processes of a machine find alike, the first of them tells for all."""
    from qd.config.loading import ConfigError

    if isinstance(error, ConfigError) and not first_of_machine():
        return
    print(f"qd {command}: {'' if first_process() else f'rank {rank_number()}: '}{error}", file=sys.stderr)


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options and overrides may come in any order, which argparse alone does not allow: to it ``key=value`` after an
    option of several values is one of them."""
    options, rest = parser.parse_known_args(arguments)
    unknown = [text for text in rest if text.startswith("-") or not hasattr(options, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if hasattr(options, "overrides"):
        options.overrides = [*options.overrides, *rest]
        for name in OF_SEVERAL:
            values = getattr(options, name, None) or []
            if swallowed := [text for text in values if "=" in text]:
                options.overrides += swallowed
                setattr(options, name, [text for text in values if text not in swallowed])
    return options


def _add_config_options(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("--config", help=f"overlay: the name of a file in configs/{kind}/, or the path of a YAML file")
    parser.add_argument("--name", help="of the run folder; what the run is and the time if not given")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run (folder or name) from its last checkpoint")
    parser.add_argument("--seed", help="of everything that is drawn")
    parser.add_argument("--device", help="auto, cpu, mps, cuda or cuda:<index>")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings by dotted key: trainer.max_steps=200"
    )


def _add_train(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "train",
        commands.run_train,
        "Train a model to sound as its guided self does, and to stay diverse.",
        "qd train --beta 15 --config quick trainer.max_steps=200 'guidance.negative_prompt=Low quality.'",
    )
    parser.add_argument("--beta", help="weight of the diversity reward, 0 or more; 0 is plain distillation")
    parser.add_argument(
        "--embedder",
        metavar="NAME",
        help="what the reward hears: builtin, a folder, a run, clap:<…> or muq:<…>",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="a .txt file of one prompt a line, .csv[:column], .jsonl[:key], musiccaps:FILE, song-describer:FILE, or "
        "generic (a shipped list); replaces the built-in prompts",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config and the time, memory and disk needed, and exit",
    )
    _add_config_options(parser, "train")


def _add_train_embedder(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "train-embedder",
        commands.run_train_embedder,
        "Train the embedder whose distances are the diversity reward.",
        "qd train-embedder --config paper --data my-music --seed 1 trainer.max_steps=100",
    )
    parser.add_argument(
        "--data", metavar="SOURCE", help="builtin, a folder, a .csv or .jsonl manifest, or datasets:<name>[:<split>]"
    )
    _add_config_options(parser, "embedder")


def _add_embedder_report(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "embedder-report",
        commands.run_embedder_report,
        "Measure how well an embedder tells recordings apart. Writes report.md and report.png.",
        "qd embedder-report --embedder runs/my-embedder --data my-music",
    )
    parser.add_argument("--embedder", default="builtin", help="builtin, a run, clap:<…> or muq:<…> (default: builtin)")
    parser.add_argument("--data", default="builtin", help="folder, manifest or datasets:<name> (default: %(default)s)")
    parser.add_argument("--n", type=int, default=256, help="held-out recordings, at most (default: %(default)s)")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of a library, held out (default: 0.05)")
    parser.add_argument("--clap", metavar="FOLDER", help="a CLAP model to measure beside it (default: if it is cached)")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<index> (default: auto)")
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (default: runs/reports/<embedder>-<time>)")


def _add_sample(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "sample",
        commands.run_sample,
        "Sample a few clips for one prompt, as WAV files and a picture of their spectrograms.",
        "qd sample --model base --prompt 'a calm piano piece' --guidance 3",
    )
    parser.add_argument("--model", default="base", help=f"{MODELS} (default: base)")
    parser.add_argument("--prompt", required=True, help="what to play")
    parser.add_argument("--n", type=int, default=4, help="clips (default: 4)")
    parser.add_argument("--guidance", type=float, default=1.0, help="γ, 0 or more; 1 is no guidance (default: 1)")
    add_sampling(parser)
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens (default: from all)")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="and from the likeliest that hold P of the probability (default: all)"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: float32)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub name (default: the newest)")
    parser.add_argument("--offline", action="store_true", help="take a hub name from the downloaded ones")
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (default: runs/samples/<time>)")


def _add_merge(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "merge",
        commands.run_merge,
        "Average the weights of models finetuned from one base: (1 - λ) · A + λ · B, or any number with weights.",
        "qd merge --a runs/beta0 --b runs/beta15 --lambda 0.5",
    )
    parser.add_argument("--a", metavar="MODEL", help=f"the quality model: {MODELS}")
    parser.add_argument("--b", metavar="MODEL", help=f"the diverse model, or the one to merge towards: {MODELS}")
    parser.add_argument("--lambda", dest="lam", type=float, metavar="λ", help="weight of B, 0 to 1 (default: 0.5)")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL[:WEIGHT]",
        help="instead of A, B and λ: models with weights that add up to 1, or without any for equal shares",
    )
    parser.add_argument("--extrapolate", action="store_true", help="allow weights outside 0 to 1")
    parser.add_argument("--out", metavar="FOLDER", help="to make (default: runs/merged/<what it is>)")


def _add_ship(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "ship",
        commands.run_ship,
        "Ship a run's weights as the built-in model beta0 or beta15. Keeps their difference to the base in 8 bits, "
        "and a card.",
        "qd ship --model runs/beta15 --name beta15",
    )
    parser.add_argument("--model", required=True, help="a run, or a step of it, finetuned from the built-in base")
    parser.add_argument("--name", required=True, help="beta0 or beta15")
    parser.add_argument("--points", metavar="FILE", help="measurements for the card (default: those of the run)")


def _add_base(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "base",
        commands.run_base,
        "Rebuild the shipped models. Each stage can be stopped, and goes on where it was when it is run again.",
        "qd base --stage codec tokens",
    )
    parser.add_argument("--stage", nargs="+", help="only these stages, by name (default: all, in their order)")
    parser.add_argument("--config", help="overlay: the name of a file in configs/base/, or the path of a YAML file")
    parser.add_argument("--install", action="store_true", help="copy what was built to where the package looks for it")
