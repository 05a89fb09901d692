"""The commands that judge audio: the ranges of scorers, training a preference, and the distance to recordings."""

from __future__ import annotations

from typing import Any

from qd.cli import runners as commands
from qd.cli.options import MODELS, add_command, add_negative_prompt, add_sampling


def add_scorer_ranges(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "scorer-ranges",
        commands.run_scorer_ranges,
        "Measure how far two scorers range over a model's samples, and the weight of adherence that makes them alike.",
        "qd scorer-ranges --adherence clap --preference audiobox --model facebook/musicgen-small",
    )
    parser.add_argument("--model", default="base", help=f"{MODELS} (default: base)")
    parser.add_argument("--adherence", default="builtin", help="builtin, clap:<…> or muq-mulan:<…> (default: builtin)")
    parser.add_argument("--preference", default="builtin", help="builtin, audiobox:<…> or a folder (default: builtin)")
    parser.add_argument("--prompts", metavar="FILE", help="as for train (default: built-in development prompts)")
    parser.add_argument("--n", type=int, help="prompts, with 4 samples each (default: all of the file, or 32)")
    parser.add_argument("--guidance", type=float, default=3.0, help="γ of the guided half, 0 or more (default: 3)")
    add_sampling(parser)


def add_train_preference(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "train-preference",
        commands.run_train_preference,
        "Train a scorer of preference from listeners' ratings. A small head over a frozen audio embedder, "
        "fitted by Bradley–Terry.",
        "qd train-preference --data ratings.csv --embedder builtin --out my-preference",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help=".csv or .jsonl with the columns audio_a, audio_b and preferred (a, b or tie) or difference (positive: a "
        "is better), or audio and rating (1 to 5); also rater and prompt, if known. Paths are relative to the file",
    )
    parser.add_argument(
        "--embedder",
        default="builtin-heldout",
        help="what hears; better not the one that a reward hears, for what fools that one would fool the scorer too "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="of the scorer, a new one (default: runs/preference/<embedder>-<time>)"
    )
    parser.add_argument(
        "--validation-share", type=float, default=0.2, help="of the recordings, held out (default: 0.2)"
    )
    parser.add_argument("--head-width", type=int, default=128, help="of the head's hidden layer (default: 128)")
    parser.add_argument("--max-steps", type=int, default=500, help="of the fit, at most (default: 500)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of the fit (default: 0.003)")
    parser.add_argument("--weight-decay", type=float, default=1.0, help="of the fit (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the fit (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<index> (default: auto)")


def add_fad(parsers: Any) -> None:
    parser = add_command(
        parsers,
        "fad",
        commands.run_fad,
        "Measure the Fréchet audio distance of generations to recordings. Also as n → ∞.",
        "qd fad --audio my-generations --reference my-music --embedder vggish:vggish-10086976.pth",
    )
    parser.add_argument("--audio", metavar="FOLDER", help="generations: a folder, or a manifest")
    parser.add_argument("--model", help=f"instead of --audio, what generates them: {MODELS}")
    parser.add_argument(
        "--reference",
        metavar="FOLDER",
        default="builtin",
        help="recordings: a folder, a manifest, or builtin, clean held-out pieces (default: %(default)s)",
    )
    parser.add_argument(
        "--embedder",
        default="builtin",
        help="vggish:<weights file>, or any name that train --embedder takes too (default: %(default)s)",
    )
    parser.add_argument("--n-reference", type=int, default=512, help="pieces of the built-in reference (default: 512)")
    parser.add_argument("--protocol", default="full", help="prompts and samples of --model (default: %(default)s)")
    parser.add_argument("--prompts", metavar="FILE", help="as for train, instead of the protocol's own")
    parser.add_argument("--guidance", type=float, default=1.0, help="γ of --model, 0 or more; 1 is none (default: 1)")
    add_negative_prompt(parser)
    parser.add_argument("--seconds", type=float, help="length of a clip of --model (default: the protocol's, 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens drawn and of FAD∞'s subsets (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<index> (default: auto)")
    parser.add_argument("--out", metavar="FILE", help="the JSON file, a new one (default: runs/fad/<time>.json)")
