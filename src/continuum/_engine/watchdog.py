"""Reports what blocks the event loop: a workflow's turn, or anything else.

The rule: it only looks and says. A turn costs it two attribute stores; the thread compares what it sees with what
it saw before, so a turn is timed from when it was first seen.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias

from continuum._core.faults import is_authors, source_line

logger = logging.getLogger("continuum.engine")

TICK_S = 0.5
INNERMOST = 3  # frames that are shown whosever they are
SHOWN = 10  # frames at most

Turn: TypeAlias = tuple[str]  # the run id; a new tuple each turn, so that identity tells turns apart


@dataclass(frozen=True, slots=True)
class Blocked:
    """The loop has been busy for ``seconds`` at least, in ``turn`` or, without one, in something else."""

    turn: Turn | None
    seconds: float


@dataclass(frozen=True, slots=True)
class StoodStill:
    """Nothing of the process ran for ``seconds``: it was suspended, or code held the interpreter."""

    seconds: float


class Looks:
    """What the watchdog concludes from one look after the other. No clock, no thread."""

    def __init__(self, blocked_after_s: float, now: float) -> None:
        self._blocked_after_s = blocked_after_s
        self._looked_at = now
        self._turn: Turn | None = None
        self._turn_since = now
        self._turn_told = False
        self._quiet_since = now  # nothing before this counts against the loop
        self._tick_told: float | None = None

    def look(self, now: float, turn: Turn | None, ticked_at: float) -> Blocked | StoodStill | None:
        """Return what is to be reported: each turn once, and otherwise each time without a tick once."""
        away = now - self._looked_at
        self._looked_at = now
        if away > 2 * self._blocked_after_s:  # a look comes each half: this thread could not run either
            self._turn, self._turn_since, self._turn_told, self._quiet_since = turn, now, False, now
            return StoodStill(away)
        if turn is not None:
            return self._look_at_turn(now, turn)
        if self._turn is not None:
            self._quiet_since = now if self._turn_told else self._quiet_since
            self._turn = None
        blocked_s = now - max(ticked_at, self._quiet_since)
        if blocked_s <= self._blocked_after_s or self._tick_told == ticked_at:
            return None
        self._tick_told = ticked_at
        return Blocked(None, blocked_s)

    def _look_at_turn(self, now: float, turn: Turn) -> Blocked | None:
        if turn is not self._turn:
            self._turn, self._turn_since, self._turn_told = turn, now, False
        elif now - self._turn_since > self._blocked_after_s and not self._turn_told:
            self._turn_told = True
            return Blocked(turn, now - self._turn_since)
        return None


class Watchdog:
    """Watches the loop that ``run`` runs on. ``turn`` is the one that is under way: set before, None after."""

    def __init__(self, *, blocked_after_s: float = 1.0, now: Callable[[], float] = time.monotonic) -> None:
        if not blocked_after_s > 0:
            raise ValueError(f"blocked_after_s must be positive: got {blocked_after_s}")
        self._blocked_after_s = blocked_after_s
        self._now = now
        self.turn: Turn | None = None
        self._ticked_at = 0.0
        self._loop_thread = 0

    async def run(self) -> None:
        """Watch until cancelled. The thread then ends by itself: nobody waits for it."""
        self._loop_thread = threading.get_ident()
        self._ticked_at = self._now()
        ended = threading.Event()
        threading.Thread(target=self._watch, args=(ended,), name="continuum-watchdog", daemon=True).start()
        try:
            while True:
                await asyncio.sleep(min(TICK_S, self._blocked_after_s / 2))
                self._ticked_at = self._now()
        finally:
            ended.set()

    def _watch(self, ended: threading.Event) -> None:
        looks = Looks(self._blocked_after_s, self._now())
        while not ended.wait(self._blocked_after_s / 2):
            try:
                if found := looks.look(self._now(), self.turn, self._ticked_at):
                    self._tell(found)
            except Exception:
                logger.exception("the watchdog failed in a look, and goes on")

    def _tell(self, found: Blocked | StoodStill) -> None:
        if isinstance(found, StoodStill):
            logger.warning(
                "the whole process stood still for %.1f s: it was suspended, or code held the interpreter",
                found.seconds,
            )
            return
        frame = sys._current_frames().get(self._loop_thread)
        line = source_line(frame) if frame is not None else ""
        stack = stack_of(frame) if frame is not None else "(the thread is gone)"
        del frame
        if found.turn is None:
            who, way_out = "the event loop is blocked", "let activities that compute or block be plain functions"
        else:
            who = f"run {found.turn[0]!r} blocks the event loop"
            way_out = "a workflow only decides; move what takes long into an activity"
        if found.turn is not None and self.turn is not found.turn:
            stack = "(the turn has ended meanwhile)"
            line = ""
        where = f", at {line}" if line else ""
        logger.warning("%s: for %.1f s%s; %s\n%s", who, found.seconds, where, way_out, stack)


def stack_of(frame: FrameType) -> str:
    """Return the stack of ``frame``, as tracebacks print it, cut to what says who blocks.

    These are the innermost frames and the author's, from the event loop inwards; what is left out is counted.
    Packages that are installed count as the author's only where there is nothing else.
    """
    frames = list(traceback.walk_stack(frame))
    loop = (n for n, (each, _) in enumerate(frames) if each.f_code is asyncio.BaseEventLoop.run_forever.__code__)
    frames = frames[: next(loop, len(frames))]
    authors = {n for n, (each, _) in enumerate(frames) if is_authors(each.f_code)}
    own = {n for n in authors if "site-packages" not in frames[n][0].f_code.co_filename}
    shown = sorted({*range(min(INNERMOST, len(frames))), *(own or authors)})[:SHOWN]
    text, after = "", -1
    for n in shown:
        entry = traceback.StackSummary.extract(iter([frames[n]]))
        text = "".join(entry.format()) + _left_out(n - after - 1) + text
        after = n
    return _left_out(len(frames) - after - 1) + text


def _left_out(count: int) -> str:
    return f"  ({count} frame{'s' if count > 1 else ''} left out)\n" if count else ""
