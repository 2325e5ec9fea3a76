"""Named points that the engine passes, and what it tells of: inert, unless somebody hangs something in.

The rule: a point lies where a crash would leave another trace than a moment before; ``POINTS`` lists them, beside
those of the journal. What is told is told after the commit that made it true.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from continuum._journal.hooks import Hooks

logger = logging.getLogger("continuum.engine")
POINTS = frozenset(
    {
        "turn.begin",  # a run's turn is about to be taken
        "turn.taken",  # it is taken and not yet handed to the journal
        "turn.committed",  # it is durable, nothing was done about it
        "activity.begin",  # an activity is about to be run
        "activity.ended",  # it has ended, and its outcome is nowhere
        "claim.adopted",  # claimed runs are loaded and about to have their turn
    }
)
EVENTS = {
    "continuum.run.started": ("run_id", "workflow"),
    "continuum.run.completed": ("run_id", "workflow"),
    "continuum.run.failed": ("run_id", "workflow", "error"),
    "continuum.run.cancelled": ("run_id", "workflow", "reason"),
    "continuum.run.continued": ("run_id", "workflow", "generation"),
    "continuum.run.retried": ("run_id", "workflow", "attempt", "error"),
    "continuum.run.parked": ("run_id", "workflow", "error"),
    "continuum.run.suspended": ("run_id", "workflow"),
    "continuum.run.fenced": ("run_id", "workflow"),
    "continuum.child.started": ("parent_run_id", "child_run_id", "workflow"),
    "continuum.child.completed": ("parent_run_id", "child_run_id", "workflow"),
    "continuum.child.failed": ("parent_run_id", "child_run_id", "workflow"),
    "continuum.child.cancelled": ("parent_run_id", "child_run_id", "workflow"),
}
Told = Callable[[str, Mapping[str, Any]], None]


class Points(Protocol):
    """Something that is told of every point of a turn, in the middle of it: it must not wait, it may raise."""

    def at(self, point: str, run_id: str) -> None:
        """Return when the engine may go on."""
        ...


@dataclass(frozen=True, slots=True)
class EngineHooks:
    """All that is hung in: the journal's points, the engine's, and who listens to events."""

    journal: Hooks | None = None
    points: Points | None = None
    listeners: Sequence[Told] = field(default=())

    def tell(self, name: str, **fields: Any) -> None:
        """Tell everybody; whose fault it is that telling fails hears the next one all the same."""
        for listener in self.listeners:
            try:
                listener(name, fields)
            except Exception:  # a listener is no part of the engine
                logger.exception("a listener failed on %s", name)


INERT = EngineHooks()
