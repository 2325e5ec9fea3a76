"""What commands print.

The rule: results go to stdout, errors and warnings to stderr, each in one line that begins with ``continuum:``.
"""

from __future__ import annotations

import logging
import sys


def say(line: str) -> None:
    """Print one line of a result."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(error: Exception, exit_code: int = 1) -> int:
    """Print an error as one line and return the exit code it ends with."""
    from continuum.errors import ContinuumError

    text = " ".join(str(error).split()) or type(error).__name__
    kind = "" if isinstance(error, ContinuumError) else f"{type(error).__name__}: "
    sys.stderr.write(f"continuum: {kind}{text}\n")
    return exit_code


def show_warnings() -> None:
    """Let warnings that the library logs appear on stderr."""
    logging.basicConfig(level=logging.WARNING, format="continuum: %(message)s", stream=sys.stderr)
