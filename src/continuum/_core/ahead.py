"""The journal that a replay reads from, and reading ahead in it.

Where a task is about to wait for an activity, nothing else in the run can move, and the very next entry is that
activity's result, going to sleep for it and being woken by it is all that would happen. So the result is handed
out at once, and a replay of steps that follow each other costs half. The rule: read ahead only where the turn
would have ended here with nothing left to compare; everything else goes the long way. The generated programs hold
this against live runs, which never read ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

from continuum._core.decisions import Decisions, Recorded
from continuum._core.entries import DECISIONS, Entry, result_prefix
from continuum._core.loop import MAX_CALLBACKS_PER_TURN, WorkflowLoop
from continuum.errors import DecodeError

_NOTHING: Recorded = {}


class Ahead:
    """A journal and the position of its next entry; empty while a run is live."""

    __slots__ = ("_decisions", "_entries", "_loop", "position", "size")

    def __init__(self, loop: WorkflowLoop, decisions: Decisions) -> None:
        self._loop = loop
        self._decisions = decisions
        self._entries: Sequence[Entry] = ()
        self.position = 0
        self.size = 0

    def open(self, entries: Sequence[Entry], position: int) -> None:
        """Read ``entries`` from ``position`` on."""
        self._entries, self.position, self.size = entries, position, len(entries)

    def close(self) -> None:
        """Forget the journal: from here on the run is live."""
        self._entries, self.position, self.size = (), 0, 0

    def take(self) -> Entry:
        """Return the next entry, an event's, and go past it."""
        entry = self._entries[self.position]
        self.position += 1
        return entry

    def take_decisions(self) -> Recorded:
        """Return the decisions recorded from here to the next event, and go past them."""
        entries, position, size = self._entries, self.position, self.size
        if position == size or entries[position].type not in DECISIONS:
            return _NOTHING
        recorded: Recorded = {}
        while position < size and (entry := entries[position]).type in DECISIONS:
            if (entry.type, entry.key) in recorded:
                raise DecodeError(f"journal entry {entry.type} {entry.key}", "it stands twice in one turn")
            recorded[entry.type, entry.key] = entry
            position += 1
        self.position = position
        return recorded

    def result_of(self, key: str, name: str, given: bytes) -> bytes | None:
        """Return the result of an activity if the task that asks may have it now, and begin its turn."""
        entries, position = self._entries, self.position
        if position == self.size:
            return None
        entry = entries[position]
        if entry.key != key or entry.type != "activity_completed":
            return None
        payload, prefix = entry.payload, result_prefix(name, given)
        loop, decisions = self._loop, self._decisions
        if decisions.recorded or not payload.startswith(prefix) or not loop.would_rest():
            return None
        self.position = position = position + 1
        recorded = _NOTHING
        if position < self.size and entries[position].type in DECISIONS:
            try:
                recorded = self.take_decisions()
            except DecodeError as error:
                decisions.undecodable(error, key)
        loop.next_number()  # the future's that is not made: later ones must hash as they did live
        if entry.at_us > loop.now_us:
            loop.now_us = entry.at_us
        decisions.at_us, decisions.recorded, decisions.commands = entry.at_us, recorded, []
        loop.budget = MAX_CALLBACKS_PER_TURN
        return payload[len(prefix) : -1]
