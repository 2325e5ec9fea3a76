"""The command ``continuum``.

The rule: one clear line on stderr for each error, never a traceback, and an exit code that a script can use:
0 done, or yes; 1 no, or it failed; 2 wrong usage or configuration.

Each module beside this one adds its verbs by ``add(commands)`` and imports what they need only when they run:
help must come at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from continuum.cli import db
from continuum.cli.output import complain, forget_output, print_anything
from continuum.errors import ContinuumError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    print_anything()
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="continuum", description="Durable execution for Python, on Postgres.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    db.add(commands)
    return parser
