"""The commands that train."""

from __future__ import annotations

import sys
from typing import Any

from qd.cli.options import Command, CommandParser, Options, add_config, add_device, add_run_options
from qd.runs.printable import printable


def _add_train(parser: CommandParser) -> None:
    parser.setting("--beta", "beta")
    parser.setting("--embedder", "reward.embedder", metavar="NAME")
    parser.path(
        "--prompts", metavar="FILE", help="training prompts instead of the built-in ones, as for evaluate --prompts"
    )
    parser.flag("--dry-run", help="print the resolved config and the time, memory and disk space needed, and exit")
    add_run_options(parser, "train")


def _train(options: Options) -> None:
    from qd.callbacks.guards import NonFiniteError
    from qd.commands.train import train
    from qd.config.train import TrainConfig
    from qd.data.prompt_files import PromptFile
    from qd.runs.process_rank import first_process

    if prompts := options.values.get("prompts"):
        source = PromptFile.parse(prompts)._asdict()
        options.settings["data.prompts"] = [{key: value for key, value in source.items() if value is not None}]
    config, run = _run_config(options, TrainConfig, "train")
    try:
        recover = options.values.get("recover", False)
        train(config, resume=run, dry_run=options.values.get("dry_run", False), recover=recover)
    except NonFiniteError as error:  # on all ranks at once
        if first_process():
            sys.exit(f"qd train: {error}")
    except KeyboardInterrupt:
        if first_process():
            raise
        # Silent elsewhere: Lightning kills the first process, still saving, when another one ends with an error.


def _add_train_embedder(parser: CommandParser) -> None:
    parser.setting("--data", "data.source", metavar="SOURCE")
    add_run_options(parser, "embedder")


def _train_embedder(options: Options) -> None:
    from qd.commands.train_embedder import train_embedder
    from qd.config.embedder import EmbedderTrainConfig
    from qd.modules.embedder import CollapseError
    from qd.runs.process_rank import first_process

    config, run = _run_config(options, EmbedderTrainConfig, "embedder")
    try:
        folder = train_embedder(config, resume=run, recover=options.values.get("recover", False))
    except (FloatingPointError, CollapseError) as error:
        if first_process():
            sys.exit(f"qd train-embedder: {error}")
        return
    except KeyboardInterrupt:
        if first_process():
            raise
        return  # silent: Lightning kills the first process, still saving, when another one ends with an error
    if first_process():
        print(printable(folder))


def _add_train_preference(parser: CommandParser) -> None:
    parser.path(
        "--data",
        required=True,
        metavar="FILE",
        help=".csv, .tsv or .jsonl with the columns audio_a, audio_b and preferred (a, b or tie) or difference "
        "(positive: a is better), or audio and rating (1 to 5); also rater and prompt, if known. Paths are relative to "
        "the file",
    )
    parser.path(
        "--embedder",
        help="embedder; avoid that of a reward, because audio that deceives the reward would deceive the scorer too",
    )
    parser.path("--out", metavar="FOLDER", help="new folder (default: runs/preference/<embedder>-<time>)")
    parser.option("--validation-share", type=float, help="share of the recordings that is held out")
    parser.option("--head-width", type=int, help="width of the head's hidden layer")
    parser.option("--max-steps", type=int, help="largest number of optimiser steps")
    parser.option("--learning-rate", type=float, help="peak learning rate")
    parser.option("--weight-decay", type=float, help="weight decay")
    parser.option("--seed", type=int, help="seed of the split and the fit")
    add_device(parser)


def _add_base(parser: CommandParser) -> None:
    parser.option("--stage", nargs="+", help="stages to run (default: all, in their order)")
    add_config(parser, "base")
    parser.flag("--install", help="copy the results into the package")


def _base(options: Options) -> None:
    from qd.commands.base import build

    values = options.values
    build(values.get("stage"), values.get("config"), values.get("install", False))


def _run_config(options: Options, schema: type, kind: str) -> tuple[Any, str | None]:
    """Returns the config that the options describe, or that of the run to resume, and this run's folder."""
    from qd.config.loading import load_config
    from qd.config.resume import resumed_config
    from qd.runs.folders import find_run, place_problems

    overlay = options.values.get("config")
    if resumed := options.values.get("resume"):
        run = find_run(resumed)
        return resumed_config(schema, kind, run, options.overrides, overlay), str(run)
    checks = [lambda config: place_problems(config.trainer.runs, config.name)]
    return load_config(schema, kind, overlay, options.overrides, checks), None


COMMANDS = (
    Command(
        "train",
        "Train a model to sound as good as with guidance, and to stay diverse.",
        "qd train --beta 15 --config quick trainer.max_steps=200 'guidance.negative_prompt=Low quality.'",
        _add_train,
        _train,
        schema="qd.config.train:TrainConfig",
        overrides=True,
        shared=True,
    ),
    Command(
        "train-embedder",
        "Train the embedder whose distances are the diversity reward.",
        "qd train-embedder --config paper --data my-music --seed 1 trainer.max_steps=100",
        _add_train_embedder,
        _train_embedder,
        schema="qd.config.embedder:EmbedderTrainConfig",
        overrides=True,
        shared=True,
    ),
    Command(
        "train-preference",
        "Train a preference scorer from listeners' ratings. It fits a small head over a frozen audio embedder by the "
        "Bradley–Terry model.",
        "qd train-preference --data ratings.csv --embedder builtin --out my-preference",
        _add_train_preference,
        function="qd.commands.train_preference:train_preference",
    ),
    Command(
        "base",
        "Rebuild the shipped models. Each stage can be stopped, and resumes when it is run again.",
        "qd base --stage codec tokens",
        _add_base,
        _base,
    ),
)
