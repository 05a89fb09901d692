"""What each command of the command line does: build the config, run, tell what stopped it.

Each imports what it needs when it runs, so that help comes at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def run_train(options: argparse.Namespace) -> None:
    """``qd train``."""
    from qd.callbacks.guards import NonFiniteError
    from qd.commands.train import train
    from qd.config.train import TrainConfig
    from qd.runs.process_rank import first_process

    settings = {
        "beta": options.beta,
        "reward.embedder": options.embedder,
        "data.prompts": [_prompt_source(options.prompts)] if options.prompts else None,
    }
    config, run = _config(options, TrainConfig, "train", settings)
    try:
        train(config, resume=run, dry_run=options.dry_run)
    except NonFiniteError as error:  # on all ranks at once
        if first_process():
            sys.exit(f"qd train: {error}")
    except KeyboardInterrupt:
        if first_process():
            raise
        # In peace: Lightning kills the first process, still saving, when another ends with an error.


def run_train_embedder(options: argparse.Namespace) -> None:
    """``qd train-embedder``."""
    from qd.commands.train_embedder import train_embedder
    from qd.config.embedder import EmbedderTrainConfig
    from qd.modules.embedder import CollapseError
    from qd.runs.process_rank import first_process

    config, run = _config(options, EmbedderTrainConfig, "embedder", {"data.source": options.data})
    try:
        folder = train_embedder(config, resume=run)
    except (FloatingPointError, CollapseError) as error:
        if first_process():
            sys.exit(f"qd train-embedder: {error}")
        return
    except KeyboardInterrupt:
        if first_process():
            raise
        return  # in peace: Lightning kills the first process, still saving, when another ends with an error
    if first_process():
        print(folder)


def run_embedder_report(options: argparse.Namespace) -> None:
    """``qd embedder-report``."""
    from qd.commands.embedder_report import embedder_report

    print(embedder_report(**_given(options)))


def run_scorer_ranges(options: argparse.Namespace) -> None:
    """``qd scorer-ranges``."""
    from qd.commands.scorer_ranges import scorer_ranges

    print(scorer_ranges(**_given(options)))


def run_train_preference(options: argparse.Namespace) -> None:
    """``qd train-preference``."""
    from qd.commands.train_preference import train_preference

    print(train_preference(**_given(options)))


def run_fad(options: argparse.Namespace) -> None:
    """``qd fad``."""
    from qd.commands.fad import fad

    print(fad(**_given(options)))


def run_evaluate(options: argparse.Namespace) -> None:
    """``qd evaluate``."""
    from qd.commands.evaluate import evaluate
    from qd.config.measuring import EvaluateConfig
    from qd.models.merging.model_spec import model_texts

    measured = {"models": model_texts(options.model or []) or None, "extrapolate": options.extrapolate or None}
    evaluate(_measuring_config(options, EvaluateConfig, "evaluate", measured), options.dry_run)


def run_sweep(options: argparse.Namespace) -> None:
    """``qd sweep``."""
    from qd.commands.sweep import sweep
    from qd.config.sweep import SweepConfig

    sweep(_measuring_config(options, SweepConfig, "sweep", {"only": options.only}), options.dry_run)


def run_report(options: argparse.Namespace) -> None:
    """``qd report``."""
    from pathlib import Path

    from qd.commands.report import write_report
    from qd.config.measuring import POINTS

    points = options.points or POINTS
    out = options.out or str(Path(points).parent / "report")
    chosen = {"protocol": options.protocol, "scorers": options.scorers}
    left_out = write_report(points, out, runs=options.runs, only=options.only, **chosen)
    for name, why in left_out.items():
        print(f"{name} is left out: {why}")
    print(f"{out}/report.html; in TensorBoard: tensorboard --logdir {out}")


def run_pick(options: argparse.Namespace) -> None:
    """``qd pick``."""
    from qd.commands.pick import pick
    from qd.config.measuring import POINTS

    setting, folder = pick(
        options.points or POINTS,
        quality=options.quality,
        diversity=options.diversity,
        allow_guidance=options.allow_guidance,
        out=options.out,
        protocol=options.protocol,
        scorers=options.scorers,
    )
    quality, diversity = setting.place
    print(f"{folder}: {setting.point.model}, quality {quality:.3f}, diversity {diversity:.3f}; its card tells the cost")


def run_sample(options: argparse.Namespace) -> None:
    """``qd sample``."""
    from qd.commands.sample import sample

    print(sample(**_given(options)))


def run_merge(options: argparse.Namespace) -> None:
    """``qd merge``."""
    from qd.commands.merge import merge

    print(merge(**_given(options)))


def run_ship(options: argparse.Namespace) -> None:
    """``qd ship``."""
    from qd.commands.ship import ship

    print(ship(**_given(options)))


def run_base(options: argparse.Namespace) -> None:
    """``qd base``."""
    from qd.commands.base import build

    build(options.stage, options.config, options.install)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a command that is one function."""
    return {key: value for key, value in vars(options).items() if key not in ("command", "run")}


def _measuring_config(options: argparse.Namespace, schema: type, kind: str, settings: dict[str, Any]) -> Any:
    """The config of a command that measures: options that were given become settings."""
    from qd.config.loading import load_config

    names = (
        "protocol",
        "prompts",
        "seeds",
        "temperature",
        "fad_reference",
        "fad_embedder",
        "eval_batch_size",
        "device",
    )
    names += ("out", "guidance_scale")
    settings = {**settings, **{name: getattr(options, name, None) for name in names}}
    settings["fad"] = options.fad or None
    given = {key: value for key, value in settings.items() if value is not None}
    if getattr(options, "negative_prompt", None) is not None:
        given["negative_prompt"] = options.negative_prompt or None
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
    return load_config(schema, kind, getattr(options, "config", None), [*overrides, *options.overrides])


def _config(options: argparse.Namespace, schema: type, kind: str, settings: dict[str, Any]) -> tuple[Any, str | None]:
    """The config that the options describe, and the folder of the run to go on with, whose own config then counts."""
    from qd.config.loading import load_config
    from qd.config.resume import resumed_config
    from qd.runs.folders import find_run, name_conflict
    from qd.runs.process_rank import first_process

    settings = {"name": options.name, "seed": options.seed, "trainer.device": options.device, **settings}
    given = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items() if value is not None]
    overrides = [*given, *options.overrides]
    if options.resume:
        run = find_run(options.resume)
        return resumed_config(schema, kind, run, overrides, options.config), str(run)
    checks = [lambda config: name_conflict(config.trainer.runs, config.name)] if first_process() else []
    return load_config(schema, kind, options.config, overrides, checks), None


def _prompt_source(text: str) -> dict[str, str]:
    """The settings of a source that is named on the command line."""
    from qd.data.prompt_files import PromptFile

    return {key: value for key, value in PromptFile.parse(text)._asdict().items() if value is not None}
