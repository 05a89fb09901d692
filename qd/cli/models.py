"""The commands that use models, and the one that prints their settings."""

from __future__ import annotations

from qd.cli.measuring import add_results
from qd.cli.options import MODELS, Command, CommandParser, Options, add_sampling
from qd.runs.printable import printable


def _add_sample(parser: CommandParser) -> None:
    parser.path("--model", default="base", help=MODELS)
    parser.option("--prompt", required=True, help="description of the music")
    parser.option("--n", type=int, help="number of clips")
    parser.option("--guidance", type=float, help="guidance scale γ, 0 or more; 1 means no guidance")
    add_sampling(parser)
    parser.option("--top-k", "--topk", type=int, metavar="K", help="sample from the K likeliest tokens (default: all)")
    parser.option(
        "--top-p",
        "--topp",
        type=float,
        metavar="P",
        help="sample from the likeliest tokens with a total probability of P (default: all)",
    )
    parser.option("--dtype", choices=("float32", "bfloat16", "float16"), help="number format of the weights")
    parser.option("--revision", help="branch, tag or commit of a hub name (default: the newest)")
    parser.flag("--offline", help="read a hub name from the local cache only")
    parser.path("--out", metavar="FOLDER", help="folder of the files (default: runs/samples/<time>)")


def _add_merge(parser: CommandParser) -> None:
    parser.path("--a", metavar="MODEL", help=f"model A, the quality model: {MODELS}")
    parser.path("--b", metavar="MODEL", help="model B, the diverse model, or the one to merge towards")
    parser.option("--lambda", dest="lam", type=float, metavar="λ", help="weight of B, 0 to 1 (default: 0.5)")
    parser.path(
        "--models",
        nargs="+",
        metavar="MODEL[:WEIGHT]",
        help="models instead of A, B and λ, with weights that add up to 1, or without weights for equal shares",
    )
    parser.flag("--extrapolate", help="allow weights outside 0 to 1")
    parser.path("--out", metavar="FOLDER", help="new folder (default: runs/merged/<name of the merge>)")


def _add_pick(parser: CommandParser) -> None:
    parser.option("--diversity", type=float, help="lowest allowed diversity; picks the highest quality")
    parser.option("--quality", type=float, help="lowest allowed quality; picks the highest diversity")
    parser.flag("--allow-guidance", help="also consider models that need guidance when deployed")
    add_results(parser)
    parser.path("--out", metavar="FOLDER", help="new folder (default: runs/picked/<target>)")


def _pick(options: Options) -> None:
    from qd.commands.pick import pick

    setting, folder = pick(**options.values)
    quality, diversity = setting.place
    measured = f"{setting.point.model}, quality {quality:.3f}, diversity {diversity:.3f}"
    print(printable(f"{folder}: {measured}; see its card"))


def _add_ship(parser: CommandParser) -> None:
    parser.path("--model", required=True, help="run, or a step of a run, that was finetuned from the built-in base")
    parser.option("--name", required=True, help="beta0 or beta15")
    parser.path("--points", metavar="FILE", help="measurements for the card (default: those of the run)")


def _add_config(parser: CommandParser) -> None:
    parser.option("kind", nargs="?", help="train, embedder, evaluate, sweep, headroom or base")
    parser.path("--config", help="overlay: the name of a file in configs/<kind>/, or the path of a YAML file")
    parser.flag("--markdown", help="print the reference page of `qd train` instead")


def _config(options: Options) -> None:
    from qd.commands.config import print_config

    print_config(**options.values, overrides=options.overrides)


COMMANDS = (
    Command(
        "sample",
        "Sample clips for one prompt, as WAV files and a picture of their spectrograms.",
        "qd sample --model base --prompt 'a calm piano piece' --guidance 3",
        _add_sample,
        function="qd.commands.sample:sample",
    ),
    Command(
        "merge",
        "Average the weights of models finetuned from one base: (1 - λ) · A + λ · B, or a weighted sum.",
        "qd merge --a runs/beta0 --b runs/beta15 --lambda 0.5",
        _add_merge,
        function="qd.commands.merge:merge",
    ),
    Command(
        "pick",
        "Pick the best measured model with at least a given diversity or quality. Writes it as a folder.",
        "qd pick --diversity 0.45 --out my-model",
        _add_pick,
        _pick,
        function="qd.commands.pick:pick",
    ),
    Command(
        "ship",
        "Ship a run's weights as the built-in model beta0 or beta15. Stores their difference to the base in 8 bits, "
        "and a card.",
        "qd ship --model runs/beta15 --name beta15",
        _add_ship,
        function="qd.commands.ship:ship",
    ),
    Command(
        "config",
        "Print a config with all settings and their documentation, as YAML that --config accepts.",
        "qd config train --config quick trainer.max_steps=200",
        _add_config,
        _config,
        overrides=True,
    ),
)
