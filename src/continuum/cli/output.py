"""What commands print.

The rule: results go to stdout, errors and warnings to stderr, each in one line that begins with ``continuum:``.
"""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper


def print_anything() -> None:
    """Let what the terminal's encoding lacks, such as a folder's name, be escaped rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_output() -> None:
    """Send what is still to be printed nowhere, so that no error of it follows at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def say(line: str) -> None:
    """Print one line of a result."""
    if sys.stdout is not None:  # else it was closed before we began
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def note(line: str) -> None:
    """Print one line on stderr that is neither a result nor an error."""
    if sys.stderr is not None:
        sys.stderr.write(f"continuum: {line}\n")
        sys.stderr.flush()


def complain(error: Exception, exit_code: int = 1) -> int:
    """Print an error as one line and return the exit code it ends with."""
    from continuum.cli.text import printable
    from continuum.errors import ContinuumError

    text = printable(" ".join(str(error).split())) or type(error).__name__
    kind = "" if isinstance(error, ContinuumError) else f"{type(error).__name__}: "
    if sys.stderr is not None:
        sys.stderr.write(f"continuum: {kind}{text}\n")
    return exit_code


def show_log(*, embedded: int = logging.WARNING) -> None:
    """Let warnings that the library logs appear on stderr, and those of ``embedded`` from that level on."""
    logging.basicConfig(level=logging.WARNING, format="continuum: %(message)s", stream=sys.stderr)
    logging.getLogger("continuum.embedded").setLevel(embedded)
