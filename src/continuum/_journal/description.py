"""Runs and entries as people and tools see them.

The rule: what stands in a row and what follows from it, nothing that would need a worker to be asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as its row stands. ``state`` is what follows from the row: a leased run is running, for example.

    ``stop_by`` and ``stop_reason`` are those of a cancellation with a grace; such a request may outlive its run.
    """

    run_id: str
    workflow: str
    version: int
    state: str
    generation: int
    depth: int
    parent_run_id: str | None
    namespace: str
    worker_id: str | None
    waiting_for: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    next_wakeup_at: datetime | None
    input: bytes
    result: bytes | None
    error: bytes | None
    published: bytes | None
    attributes: bytes | None
    trace: str | None = None
    stop_by: datetime | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An entry of a journal and its place. ``payload`` is None for a child's result kept only in its row."""

    generation: int
    seq: int
    at_us: int
    type: str
    key: str
    payload: bytes | None
