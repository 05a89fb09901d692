"""The command line ``qd <command>``: finds the command, parses its options, runs it and reports errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from qd.cli import measuring, models, training
from qd.cli.options import Command
from qd.runs.printable import printable
from qd.runs.process_rank import first_of_machine, first_process, other_process, rank_number
from qd.runs.signals import stop_cause, stop_signals, stop_status
from qd.runs.streams import keep_streams

BAD_INPUT = 2
RENAMED = {"keep": "ship"}
"""Former names of commands."""
COMMANDS = {command.name: command for module in (training, models, measuring) for command in module.COMMANDS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, 2 for bad input or a disk error (one message), 128 + number after a stop signal.
    """
    keep_streams()
    with stop_signals():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    command, words = _command(list(sys.argv[1:] if arguments is None else arguments))
    options = command.parse(words)
    if not command.shared and (problem := other_process()):
        print(f"qd {command.name}: {problem}", file=sys.stderr)
        return BAD_INPUT
    try:
        _quieten()
        command(options)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        _report(command.name, error)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        what = f"; {printable(interrupt)}" if str(interrupt) else ""
        print(f"qd {command.name}: stopped by {stop_cause()}{what}", file=sys.stderr)
        return stop_status()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of the first word; its help lists the commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_short(command.summary)}" for name, command in COMMANDS.items()]
    return argparse.ArgumentParser(
        prog="qd",
        usage="qd <command> [options]",
        description="Diversity-rewarded distillation of classifier-free guidance for text-to-music models.",
        epilog="\n".join(["commands:", *lines, "", "`qd <command> --help` explains a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _command(words: list[str]) -> tuple[Command, list[str]]:
    """The command that the first word names, and the other words; exits if it names none."""
    name, *rest = words or [""]
    if name in COMMANDS:
        return COMMANDS[name], rest
    parser = build_parser()
    if name in ("-h", "--help"):
        parser.parse_args([name])
    nearest = [RENAMED[name]] if name in RENAMED else get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(COMMANDS)}"
    parser.error(f"unknown command {name!r}; {hint}" if name else f"no command; {hint}")


def _short(summary: str) -> str:
    """The first sentence, as an entry of a list."""
    return summary[0].lower() + summary[1:].split(". ")[0].rstrip(".")


def _quieten() -> None:
    from qd.runs.quiet import quieten_libraries

    quieten_libraries()


def _report(command: str, error: ValueError | OSError) -> None:
    """Prints an error, with the rank of the process; a config error only on the first process of each machine,
    because all of them find the same."""
    from qd.config.loading import ConfigError
    from qd.runs.disk import disk_problem

    if isinstance(error, ConfigError) and not first_of_machine():
        return
    text = disk_problem(error, "run the same command again") if isinstance(error, OSError) else str(error)
    print(f"qd {command}: {'' if first_process() else f'rank {rank_number()}: '}{printable(text)}", file=sys.stderr)
