"""Whose fault an exception is: the engine's, which has broken a promise, or the simulation's own.

The rule: the innermost frame decides that is either's. So a mistake in the simulation is never taken for a bug of
the engine's, nor the other way round.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import continuum
from tests.simulation.checker import Broken

OURS = Path(__file__).parent
THEIRS = Path(continuum.__file__).parent
PLAYED = {OURS / "flows.py"}
"""What of ours the engine runs: what leaks out of it, the engine has let out."""


def blame(error: BaseException) -> BaseException:
    """Return what to raise for ``error``: ``Broken``, or if the simulation itself is at fault ``error``."""
    found = _first(error)
    if isinstance(found, Broken):
        return found
    for frame in reversed(traceback.extract_tb(found.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(THEIRS) or path in PLAYED:
            place = f"{path.name}, line {frame.lineno}, in {frame.name}"
            what = f"{type(found).__name__}: {found}" if str(found) else type(found).__name__
            return Broken(f"{what} ({place})").with_traceback(found.__traceback__)
        if path.is_relative_to(OURS):
            break
    return found


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
