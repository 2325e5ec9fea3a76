"""Named points that the journal passes: inert, unless a test or a fault is hung in.

The rule: a point lies between two things that are each atomic, or inside a transaction that is open (of ``large``
and ``cancel``), so stopping there shows what a crash or another worker may see. The names are the contract of the
race tests; ``POINTS`` lists them all.
"""

from __future__ import annotations

from typing import Protocol

POINTS = frozenset(
    {
        "flush.begin",  # a batch is chosen, nothing is sent
        "flush.committed",  # its commits are acknowledged, no outcome is told, nobody is woken
        "large.begin",
        "large.locked",  # a large commit holds its runs' rows
        "large.written",  # everything is written, not committed
        "large.committed",
        "cancel.begin",
        "cancel.root",  # runs with which a cascade begins are cancelled in the open transaction
        "cancel.level",  # one more level below them is
        "cancel.committed",
        "claim.begin",
        "claim.committed",  # leased, the inbox not yet read
        "poke.begin",  # woken are known, nothing is armed
        "poke.committed",
    }
)


class Hooks(Protocol):
    """Something that is told of every point, and may wait there or raise."""

    async def reach(self, point: str) -> None:
        """Return when the journal may go on."""
        ...


class Inert:
    """Hooks that do nothing."""

    async def reach(self, point: str) -> None:
        """Return at once."""


INERT = Inert()
