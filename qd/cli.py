"""The command line ``qd <command>``: parse, build, run.

Nothing heavy is imported before a command runs, so that help comes at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INTERRUPTED = 130  # the exit status of a program that Ctrl-C stopped
BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 for bad input (told in one message), 130 after Ctrl-C."""
    parser = build_parser()
    options = _parse(parser, arguments)
    try:
        options.run(options)
    except ValueError as error:
        print(f"qd {options.command}: {error}", file=sys.stderr)
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="<command>")
    for add in (_add_train, _add_train_embedder, _add_sample, _add_base):
        add(commands)
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options and overrides may come in any order, which argparse alone does not allow."""
    options, rest = parser.parse_known_args(arguments)
    unknown = [text for text in rest if text.startswith("-") or not hasattr(options, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _command(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].split(". ")[0].rstrip("."),
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_config_options(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("--config", help=f"overlay: the name of a file in configs/{kind}/, or the path of a YAML file")
    parser.add_argument("--name", help="of the run folder; what the run is and the time if not given")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run (folder or name) from its last checkpoint")
    parser.add_argument("--seed", help="of everything that is drawn")
    parser.add_argument("--device", help="auto, cpu, mps, cuda or cuda:<index>")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings by dotted key: trainer.max_steps=200"
    )


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "Train a model to sound as its guided self does, and to stay diverse.",
        "qd train --beta 15 --config quick trainer.max_steps=200 'guidance.negative_prompt=Low quality.'",
    )
    parser.add_argument("--beta", help="weight of the diversity reward, 0 or more; 0 is plain distillation")
    parser.add_argument(
        "--embedder", metavar="FOLDER", help="what the reward hears: builtin, a folder, or a run of train-embedder"
    )
    parser.add_argument(
        "--prompts", metavar="FILE", help="one prompt a line, or <file>.csv:<column>; replaces the built-in prompts"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config and the time, memory and disk needed, and exit",
    )
    _add_config_options(parser, "train")


def _add_train_embedder(commands: Any) -> None:
    parser = _command(
        commands,
        "train-embedder",
        _train_embedder,
        "Train the embedder whose distances are the diversity reward.",
        "qd train-embedder --seed 1 trainer.max_steps=100",
    )
    _add_config_options(parser, "embedder")


def _add_sample(commands: Any) -> None:
    parser = _command(
        commands,
        "sample",
        _sample,
        "Sample a few clips for one prompt, as WAV files and a picture of their spectrograms.",
        "qd sample --model base --prompt 'a calm piano piece' --guidance 3",
    )
    parser.add_argument("--model", default="base", help="base, a run, a folder or a hub name (default: base)")
    parser.add_argument("--prompt", required=True, help="what to play")
    parser.add_argument("--n", type=int, default=4, help="clips (default: 4)")
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance scale; 1 is no guidance (default: 1)")
    parser.add_argument(
        "--negative-prompt",
        default="Bad audio quality.",
        help="of the guidance; '' is unconditional (default: %(default)r)",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip (default: 4)")
    parser.add_argument("--temperature", type=float, default=0.99, help="above 0 (default: 0.99)")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens drawn (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<index> (default: auto)")
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (default: runs/samples/<time>)")


def _add_base(commands: Any) -> None:
    parser = _command(
        commands,
        "base",
        _base,
        "Rebuild the shipped models. Each stage can be stopped, and goes on where it was when it is run again.",
        "qd base --stage codec tokens",
    )
    parser.add_argument("--stage", nargs="+", help="only these stages, by name (default: all, in their order)")
    parser.add_argument("--config", help="overlay: the name of a file in configs/base/, or the path of a YAML file")
    parser.add_argument("--install", action="store_true", help="copy what was built to where the package looks for it")


def _train(options: argparse.Namespace) -> None:
    from qd.callbacks.guards import NonFiniteError
    from qd.config_schema import TrainConfig
    from qd.train import train

    settings = {
        "beta": options.beta,
        "reward.embedder": options.embedder,
        "data.prompts": [_prompt_source(options.prompts)] if options.prompts else None,
    }
    config, run = _config(options, TrainConfig, "train", settings)
    try:
        train(config, resume=run, dry_run=options.dry_run)
    except NonFiniteError as error:
        sys.exit(f"qd train: {error}")


def _train_embedder(options: argparse.Namespace) -> None:
    from qd.modules.embedder import CollapseError
    from qd.modules.embedder_config import EmbedderTrainConfig
    from qd.train_embedder import train_embedder

    config, run = _config(options, EmbedderTrainConfig, "embedder", {})
    try:
        print(train_embedder(config, resume=run))
    except (FloatingPointError, CollapseError) as error:
        sys.exit(f"qd train-embedder: {error}")


def _sample(options: argparse.Namespace) -> None:
    from qd.sample import sample

    given = {key: value for key, value in vars(options).items() if key not in ("command", "run")}
    print(sample(**given))


def _base(options: argparse.Namespace) -> None:
    from qd.builtin.pretrain.base import build

    build(options.stage, options.config, options.install)


def _config(options: argparse.Namespace, schema: type, kind: str, settings: dict[str, Any]) -> tuple[Any, str | None]:
    """The config that the options describe, and the folder of the run to go on with, whose own config then counts."""
    from qd.config import load_config
    from qd.runs import find_run, resumed_config, taken

    settings = {"name": options.name, "seed": options.seed, "trainer.device": options.device, **settings}
    given = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items() if value is not None]
    overrides = [*given, *options.overrides]
    if options.resume:
        run = find_run(options.resume)
        return resumed_config(schema, kind, run, overrides, options.config), str(run)
    free = [lambda config: taken(config.trainer.runs, config.name)]
    return load_config(schema, kind, options.config, overrides, free), None


def _prompt_source(text: str) -> dict[str, str]:
    """``prompts.txt``, or ``prompts.csv:column``."""
    file, colon, column = text.rpartition(":")
    if colon and Path(file).suffix.lower() == ".csv":
        return {"kind": "csv", "path": file, "column": column}
    return {"kind": "csv" if Path(text).suffix.lower() == ".csv" else "text", "path": text}
