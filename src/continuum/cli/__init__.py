"""The command ``continuum``.

The rule: one clear line on stderr for each error, never a traceback, and an exit code that a script can use:
0 done, or yes; 1 no, or it failed; 2 wrong usage or configuration.

Each module beside this one adds its verbs by ``add(commands)`` and imports what they need only when they run:
help must come at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from continuum.cli import db, demo, runs, start, worker
from continuum.cli.output import complain, forget_output, print_anything
from continuum.errors import ContinuumError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    print_anything()
    parser = _parser()
    try:
        arguments, unknown = parser.parse_known_args(argv)
        _take_late(arguments, unknown)
    except SystemExit as ending:  # argparse has said it all: help, or what is wrong
        return ending.code if isinstance(ending.code, int) else 2
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return complain(ContinuumError("interrupted"), exit_code=130)
    except BrokenPipeError:  # who read our output has had enough
        forget_output()
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        return complain(error)


class _Parser(argparse.ArgumentParser):
    """A parser that complains as everything here does: in one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(complain(ContinuumError(f"{message}; see `{self.prog} --help`"), exit_code=2))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        import difflib

        choices = None if action.choices is None else list(action.choices)
        if choices is not None and value not in choices:
            near = difflib.get_close_matches(str(value), map(str, choices), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(str, choices))}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="continuum", description="Durable execution for Python, on Postgres.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (worker, start, runs, db, demo):
        module.add(commands)
    return parser


def _take_late(arguments: argparse.Namespace, unknown: list[str]) -> None:
    """Take an argument that may be left out and came behind options, and refuse what else is not known.

    argparse gives the last positional argument its default as soon as an option follows the one before it.
    """
    late: str | None = getattr(arguments, "late", None)
    if late is not None and getattr(arguments, late) is None and len(unknown) == 1 and not _is_option(unknown[0]):
        setattr(arguments, late, unknown.pop())
    if unknown:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}{_nearest(arguments.parser, unknown)}")


def _is_option(text: str) -> bool:
    return text.startswith("--")


def _nearest(parser: argparse.ArgumentParser, unknown: list[str]) -> str:
    import difflib

    shown = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    known = [option for action in shown for option in action.option_strings]
    for name in filter(_is_option, unknown):
        if near := difflib.get_close_matches(name.partition("=")[0], known, n=1):
            return f"; did you mean {near[0]}?"
    return ""
