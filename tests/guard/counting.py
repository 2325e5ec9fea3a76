"""What Python does, counted in functions: the same on every machine, and nearly the same on every Python.

The rule: a call counts when a function begins or goes on (a coroutine, each time it is resumed), in this thread
alone. Comprehensions do not count, for they are calls on Python 3.11 only, and no function of this folder does.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType

import continuum

OURS = str(Path(continuum.__file__).parent)
HERE = str(Path(__file__).parent)
INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}


class Calls:
    """How often functions were called in the blocks of ``counted``."""

    def __init__(self) -> None:
        self._of: Counter[CodeType] = Counter()

    @property
    def ours(self) -> int:
        """Calls of functions in ``src/continuum``; what dataclasses generate for them is in ``all`` alone."""
        return sum(count for code, count in self._of.items() if code.co_filename.startswith(OURS))

    @property
    def all(self) -> int:
        """Calls of all functions written in Python."""
        return self._of.total()

    def of(self, code: CodeType) -> int:
        """Return the calls of one function."""
        return self._of[code]

    def most(self, count: int) -> list[tuple[str, int]]:
        """Return the functions that were called most, as file and name."""
        return [
            (f"{Path(code.co_filename).name}:{code.co_qualname}", times)
            for code, times in self._of.most_common(count)
        ]

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count until the block ends."""
        with _told(self._of):
            yield
        for code in list(self._of):
            if code.co_name in INLINED or code.co_filename.startswith(HERE):
                del self._of[code]


if sys.version_info >= (3, 12):

    @contextmanager
    def _told(of: Counter[CodeType]) -> Iterator[None]:
        """Count in ``of`` what begins in this thread."""
        monitoring, here = sys.monitoring, get_ident()
        tool, events = monitoring.PROFILER_ID, monitoring.events

        def begins(code: CodeType, offset: int) -> None:
            if get_ident() == here:
                of[code] += 1

        monitoring.use_tool_id(tool, "calls")
        try:
            for event in (events.PY_START, events.PY_RESUME):
                monitoring.register_callback(tool, event, begins)
            monitoring.set_events(tool, events.PY_START | events.PY_RESUME)
            yield
        finally:
            monitoring.set_events(tool, events.NO_EVENTS)
            for event in (events.PY_START, events.PY_RESUME):
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)

else:

    @contextmanager
    def _told(of: Counter[CodeType]) -> Iterator[None]:
        """Count in ``of`` what begins in this thread."""

        def happens(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                of[frame.f_code] += 1

        before = sys.getprofile()
        sys.setprofile(happens)
        try:
            yield
        finally:
            sys.setprofile(before)
