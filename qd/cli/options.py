"""How a command of the command line is declared."""

from __future__ import annotations

import argparse
from typing import Any

MODELS = "base, beta0, beta15, a run, a folder or a hub name, owner/name[@revision]"
"""What a model may be named by, in help texts."""


def add_command(parsers: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    """The parser of a new command.

    Args:
        parsers: of all commands.
        name: of this one. run: what it does with the parsed options.
        summary: what it is for; its first sentence stands in the list of commands.
        example: a line that one can type.
    """
    parser = parsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:].split(". ")[0].rstrip("."),
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_negative_prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--negative-prompt",
        default="Bad audio quality.",
        help="of the guidance; '' is unconditional (default: %(default)r)",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How a command samples, beside its guidance scale, and where."""
    add_negative_prompt(parser)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip (default: 4)")
    parser.add_argument("--temperature", type=float, default=0.99, help="above 0 (default: 0.99)")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens drawn (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<index> (default: auto)")
