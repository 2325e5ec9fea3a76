"""Runs, their histories and definitions as callers see them: plain frozen values.

The rule: describing never fails for what stands in a row. A value that its type cannot read is given as plain
JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from continuum._core.codec import Codec
from continuum._core.failure import decode_failure
from continuum._core.jsontext import load
from continuum._journal.commit import Announcement
from continuum._journal.description import EventRow, RunRow
from continuum.errors import DecodeError, Failure
from continuum.workflow import Workflow

__all__ = ["AnnouncedDefinition", "Event", "RunDescription"]

CLOCKS_DIFFER = timedelta(seconds=5)  # between here and the database: what is due so soon counts as due
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RunDescription:
    """A run as it stood when it was looked at.

    ``state`` is pending, running, suspended, completed, failed, cancelled or parked. ``input`` is that of the
    first generation. ``error`` says why it failed, was cancelled or is parked; ``str(error)`` is "Type: message".
    ``waiting_for`` is text for people, as of the last time the run left memory. ``depth`` counts the runs above
    it, ``generation`` counts from 1. Times are aware, in the database's clock. ``worker_id`` is who holds the run.
    ``stop_by`` and ``stop_reason`` tell of a run that was asked to stop and has not ended: until when it may take.
    ``attributes`` and ``traceparent`` are those it was started with, or inherited.
    ``published`` is what the workflow last gave to ``set_state``. ``input``, ``result`` and ``published`` have the
    types of the workflow where the handle knows it and they still fit, else they are plain JSON.
    """

    id: str
    workflow: str
    version: int
    state: str
    input: Any
    result: Any
    error: Failure | None
    parent_run_id: str | None
    depth: int
    generation: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    waiting_for: str | None
    namespace: str
    worker_id: str | None
    published: Any
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    traceparent: str | None = None
    stop_by: datetime | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of a run's journal. ``type`` is ``child_started``, ``activity_completed`` and so on."""

    seq: int
    generation: int
    type: str
    key: str
    at: datetime
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnnouncedDefinition:
    """A definition that some worker has announced. ``workers`` of them are alive; activities have version 0."""

    kind: str
    name: str
    version: int
    workers: int
    schemas: Any = None


def described(
    row: RunRow, flow: Workflow[Any, Any] | None, workers: Mapping[tuple[str, int], int]
) -> RunDescription:
    """Return ``row`` as callers see it. ``workers`` counts the live ones that have a workflow's version."""
    known = flow if flow is not None and flow.name == row.workflow else None
    error = None if row.error is None else failure_of(row.error)
    lives = row.completed_at is None
    return RunDescription(
        id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        state=row.state,
        input=_value(row.input, known.input if known else None),
        result=_value(row.result, known.result if known else None),
        error=error,
        parent_run_id=row.parent_run_id,
        depth=row.depth,
        generation=row.generation,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        waiting_for=_waiting_for(row, error, workers),
        namespace=row.namespace,
        worker_id=row.worker_id,
        published=_value(row.published, known.state if known else None),
        attributes={} if row.attributes is None else plain(row.attributes),
        traceparent=row.trace,
        stop_by=row.stop_by if lives else None,
        stop_reason=row.stop_reason if lives else None,
    )


def event(row: EventRow, child_results: Mapping[str, bytes]) -> Event:
    """Return an entry as callers see it; a child's result too large to be kept twice is in ``child_results``."""
    if row.payload is None:
        payload: Any = {"result": plain(child_results[row.key])} if row.key in child_results else {}
    else:
        payload = plain(row.payload)
    at = _EPOCH + timedelta(microseconds=row.at_us)
    return Event(row.seq, row.generation, row.type, row.key, at, payload)


def announced(found: Announcement, workers: int) -> AnnouncedDefinition:
    """Return an announcement as callers see it."""
    return AnnouncedDefinition(found.kind, found.name, found.version, workers, _value(found.schemas))


def place(run: RunDescription) -> RunRow:
    """Return as much of a run's row as a page of a list goes on from."""
    return RunRow(
        run_id=run.id,
        workflow=run.workflow,
        version=run.version,
        state=run.state,
        generation=run.generation,
        depth=run.depth,
        parent_run_id=run.parent_run_id,
        namespace=run.namespace,
        worker_id=run.worker_id,
        waiting_for=run.waiting_for,
        created_at=run.created_at,
        started_at=run.started_at,
        completed_at=run.completed_at,
        next_wakeup_at=None,
        input=b"",
        result=None,
        error=None,
        published=None,
        attributes=None,
    )


def is_due(row: RunRow) -> bool:
    """Tell whether a run is there for any worker to take that has its workflow."""
    if row.state not in ("pending", "suspended") or row.worker_id is not None or row.next_wakeup_at is None:
        return False
    return row.next_wakeup_at <= datetime.now(UTC) + CLOCKS_DIFFER


def failure_of(error: bytes | None) -> Failure:
    """Return the failure that a row holds, whatever it is."""
    try:
        return Failure("Unknown", "") if error is None else decode_failure(error)
    except ValueError:
        return Failure("Unknown", (error or b"").decode(errors="replace"))


def plain(data: bytes) -> Any:
    """Return JSON as plain values; what cannot be read, as its text."""
    try:
        return load(data)
    except ValueError:
        return data.decode(errors="replace")


def _value(data: bytes | None, codec: Codec[Any] | None = None) -> Any:
    if data is None:
        return None
    if codec is not None:
        try:
            return codec.decode(data)
        except DecodeError:  # of another version, perhaps
            pass
    return plain(data)


def _waiting_for(row: RunRow, error: Failure | None, workers: Mapping[tuple[str, int], int]) -> str | None:
    if row.completed_at is not None:
        return None
    if row.state == "parked":
        why = " ".join(str(error).split()) if error is not None else "an unknown fault"
        return f"somebody to resume it; it was parked because of {why}"
    if is_due(row) and not workers.get((row.workflow, row.version)):
        return f"a worker with workflow {row.workflow!r} version {row.version}; none is running"
    if row.state == "pending" and is_due(row):
        return "a worker to take it up"
    return row.waiting_for or None
