"""The commands that measure, and those that show measurements."""

from __future__ import annotations

from typing import Any

from qd.cli.options import (
    MODELS,
    Command,
    CommandParser,
    Options,
    add_config,
    add_device,
    add_negative_prompt,
    add_sampling,
)


def _add_evaluate(parser: CommandParser) -> None:
    parser.setting("--model", "models", action="append")
    parser.setting("--guidance", "guidance_scale")
    parser.setting("--negative-prompt", "negative_prompt", type=lambda text: text or None)
    parser.setting("--extrapolate", "extrapolate", action="store_true")
    _add_measuring(parser)


def _evaluate(options: Options) -> None:
    from qd.commands.evaluate import evaluate
    from qd.config.measuring import EvaluateConfig
    from qd.models.merging.model_spec import model_texts

    if models := options.settings.get("models"):
        options.settings["models"] = model_texts(models)
    evaluate(_measuring_config(options, EvaluateConfig, "evaluate"), options.values.get("dry_run", False))


def _add_sweep(parser: CommandParser) -> None:
    add_config(parser, "sweep")
    parser.setting("--only", "only", nargs="+", metavar="SERIES")
    _add_measuring(parser)


def _sweep(options: Options) -> None:
    from qd.commands.sweep import sweep
    from qd.config.sweep import SweepConfig

    sweep(_measuring_config(options, SweepConfig, "sweep"), options.values.get("dry_run", False))


def _add_measuring(parser: CommandParser) -> None:
    """Adds the options that `evaluate` and `sweep` share."""
    parser.setting("--protocol", "protocol")
    parser.setting("--prompts", "prompts", metavar="FILE")
    parser.setting("--seeds", "seeds", nargs="+")
    parser.setting("--temperature", "temperature")
    parser.setting("--fad", "fad", action="store_true")
    parser.setting("--reference", "fad_reference", metavar="FOLDER")
    parser.setting("--fad-embedder", "fad_embedder", metavar="NAME")
    parser.setting("--eval-batch-size", "eval_batch_size")
    parser.setting("--device", "device")
    parser.setting("--out", "out", metavar="FILE")
    parser.flag("--dry-run", help="list the points with the time and disk space that they need, and exit")


def _measuring_config(options: Options, schema: type, kind: str) -> Any:
    from qd.config.loading import load_config

    return load_config(schema, kind, options.values.get("config"), options.overrides)


def _add_fad(parser: CommandParser) -> None:
    parser.option("--audio", metavar="FOLDER", help="generated audio: a folder or a manifest")
    parser.option("--model", help=f"model that generates the audio, instead of --audio: {MODELS}")
    parser.option(
        "--reference",
        metavar="FOLDER",
        help="reference recordings: a folder, a manifest, or builtin (clean held-out pieces)",
    )
    parser.option("--embedder", help="vggish:<weights file>, or any name that train --embedder accepts")
    parser.option("--n-reference", type=int, help="number of clips of the built-in reference")
    parser.option("--protocol", help="prompts and samples of --model")
    parser.option("--prompts", metavar="FILE", help="prompts of --model instead of the protocol's, as for evaluate")
    parser.option("--guidance", type=float, help="guidance scale γ of --model, 0 or more; 1 means no guidance")
    add_negative_prompt(parser)
    parser.option("--seconds", type=float, help="length of a clip of --model in seconds (default: the protocol's, 4)")
    parser.option("--seed", type=int, help="seed for token sampling and for the subsets of FAD∞")
    add_device(parser)
    parser.option("--out", metavar="FILE", help="new JSON file (default: runs/fad/<time>.json)")


def _add_scorer_ranges(parser: CommandParser) -> None:
    parser.option("--model", help=MODELS)
    parser.option("--adherence", help="builtin, clap:<…> or muq-mulan:<…>")
    parser.option("--preference", help="builtin, audiobox:<…> or a folder")
    parser.option(
        "--prompts", metavar="FILE", help="prompts, as for evaluate (default: the built-in development prompts)"
    )
    parser.option("--n", type=int, help="number of prompts, 4 samples each (default: all of the file; 32 built-in)")
    parser.option("--guidance", type=float, help="guidance scale γ of the guided half, 0 or more")
    add_sampling(parser)


def _add_embedder_report(parser: CommandParser) -> None:
    parser.option("--embedder", help="builtin, a run, clap:<…> or muq:<…>")
    parser.option("--data", help="recordings: builtin, a folder, a manifest or datasets:<name>")
    parser.option("--n", type=int, help="largest number of held-out recordings")
    parser.option("--validation-share", type=float, help="share of a library's recordings that is held out")
    parser.option("--world", type=int, help="edition of the built-in world, 1 or 2 (default: 1)")
    parser.option("--clap", metavar="FOLDER", help="CLAP model to compare with (default: the cached one, if any)")
    add_device(parser)
    parser.option("--out", metavar="FOLDER", help="folder of the files (default: runs/reports/<embedder>-<time>)")


def _add_report(parser: CommandParser) -> None:
    add_results(parser, "results file (default: the default of evaluate --out)")
    parser.option("--runs", nargs="+", metavar="RUN", help="folders of runs, for curves along training")
    parser.option("--only", nargs="+", metavar="NAME", help="parts: figure-1 …, table-1 …, fronts (default: all)")
    parser.option("--out", metavar="FOLDER", help="folder of the report (default: report, next to the results file)")


def _report(options: Options) -> None:
    from pathlib import Path

    from qd.commands.report import write_report
    from qd.config.measuring import POINTS

    values = {"points": POINTS, **options.values}
    values.setdefault("out", str(Path(values["points"]).parent / "report"))
    for name, reason in write_report(**values).items():
        print(f"{name} is left out: {reason}")
    print(f"{values['out']}/report.html; in TensorBoard: tensorboard --logdir {values['out']}")


def add_results(parser: CommandParser, points: str = "results file") -> None:
    """Adds the options of a command that reads a results file; ``points`` is the help text of the file."""
    parser.option("--points", metavar="FILE", help=points)
    parser.option("--protocol", help="protocol of the points, if the file has several")
    parser.option("--scorers", metavar="TEXT", help="part of the scorers' description, if the file has several")


def _add_headroom(parser: CommandParser) -> None:
    add_config(parser, "headroom")
    parser.setting("--model", "model")
    parser.setting("--models", "models", nargs="+", metavar="MODEL")
    parser.setting("--beta", "beta", nargs="+")
    parser.setting("--guidance", "guidance_scale")
    parser.setting("--negative-prompt", "negative_prompt", type=lambda text: text or None)
    parser.setting("--protocol", "protocol")
    parser.setting("--prompts", "prompts", metavar="FILE")
    parser.setting("--n", "n_prompts")
    parser.setting("--samples", "samples")
    parser.setting("--seed", "seed")
    parser.setting("--device", "device")
    parser.setting("--out", "out", metavar="FOLDER")


def _headroom(options: Options) -> None:
    from qd.commands.headroom import headroom
    from qd.config.headroom import HeadroomConfig

    print(headroom(_measuring_config(options, HeadroomConfig, "headroom")))


COMMANDS = (
    Command(
        "evaluate",
        "Measure models. Adds a line for each model and seed to a results file, and skips existing ones.",
        "qd evaluate --model base --model 'runs/beta0:0.5 runs/beta15:0.5' --seeds 0 1",
        _add_evaluate,
        _evaluate,
        schema="qd.config.measuring:EvaluateConfig",
        overrides=True,
        shared=True,
    ),
    Command(
        "sweep",
        "Measure every point of a config: interpolations, guidance, temperature, soups, lists of models. Adds lines "
        "to a results file, and skips existing ones: the same command resumes after a stop.",
        "qd sweep --config quick --only guidance-base slider",
        _add_sweep,
        _sweep,
        schema="qd.config.sweep:SweepConfig",
        overrides=True,
        shared=True,
    ),
    Command(
        "headroom",
        "Estimate the optimum of the objective for each β, without any training. Compares it with guidance and with "
        "trained models.",
        "qd headroom --beta 0 5 15 --models beta0 beta15 --n 8 --samples 128",
        _add_headroom,
        _headroom,
        schema="qd.config.headroom:HeadroomConfig",
        overrides=True,
    ),
    Command(
        "report",
        "Draw the paper's figures and tables from a results file. Writes PNG, SVG, Markdown, one HTML page with "
        "players, and a TensorBoard run.",
        "qd report --runs runs/beta0 runs/beta15 --only figure-3 table-1",
        _add_report,
        _report,
    ),
    Command(
        "fad",
        "Measure the Fréchet audio distance of generated audio to recordings, also extrapolated to n → ∞, and the "
        "kernel audio distance.",
        "qd fad --audio my-generations --reference my-music --embedder vggish:vggish-10086976.pth",
        _add_fad,
        function="qd.commands.fad:fad",
    ),
    Command(
        "scorer-ranges",
        "Measure the ranges of two scorers on a model's samples, and the weight ω that makes them equal.",
        "qd scorer-ranges --adherence clap --preference audiobox --model facebook/musicgen-small",
        _add_scorer_ranges,
        function="qd.commands.scorer_ranges:scorer_ranges",
    ),
    Command(
        "embedder-report",
        "Measure how well an embedder distinguishes recordings. Writes report.md and report.png.",
        "qd embedder-report --embedder runs/my-embedder --data my-music",
        _add_embedder_report,
        function="qd.commands.embedder_report:embedder_report",
    ),
)
