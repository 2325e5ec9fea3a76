"""The ledger that activities write to, outside of every journal.

The rule: one process has one, and who puts another in its place puts the one before back.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class Ledger(Protocol):
    """What activities write to, outside of every journal."""

    def note(self, run_id: str, key: str, value: object) -> int:
        """Note that an activity was called; return how many calls of this run and key that makes."""
        ...


class Calls:
    """A ledger that keeps every call, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, object]] = []
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, run_id: str, key: str, value: object) -> int:
        self.calls.append((run_id, key, value))
        self._counts[run_id, key] += 1
        return self._counts[run_id, key]


_ledger: Ledger = Calls()


def install(ledger: Ledger) -> Ledger:
    """Let activities write to ``ledger`` from now on; return the one before."""
    global _ledger
    before, _ledger = _ledger, ledger
    return before


def note(run_id: str, key: str, value: object) -> int:
    """Note a call in the ledger that is in place."""
    return _ledger.note(run_id, key, value)
