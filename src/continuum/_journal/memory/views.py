"""Reading a journal in memory: for people, clients and tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from continuum._core.jsontext import dump, load
from continuum._journal import description
from continuum._journal.memory.store import Memory, entry_rows
from continuum._journal.memory.tables import RunRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PAGE = 1_000


class MemoryViews:
    """See ``protocol.Views``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def describe_all(self, run_ids: Sequence[str]) -> list[description.RunRow]:
        """Return those of the runs that exist, in the order given."""
        runs = self._memory.runs
        return [self._described(runs[run_id]) for run_id in run_ids if run_id in runs]

    async def declared(self, run_id: str) -> tuple[str, tuple[str, ...]] | None:
        """Return a run's workflow and the signals it declares, or None if any may be sent, or nobody knows."""
        run = self._memory.runs.get(run_id)
        named = () if run is None else ("workflow", run.workflow, run.version)
        told: list[dict[str, Any] | None] = [
            load(found.schemas or b"null") for key, found in self._memory.announced.items() if key[:3] == named
        ]
        signals: list[dict[str, Any]] = [{} if schemas is None else schemas.get("signals", {}) for schemas in told]
        if run is None or not signals or not all(signals):
            return None
        return run.workflow, tuple(sorted({name for names in signals for name in names}))

    async def history(
        self, run_id: str, generation: int | None = None, *, after: tuple[int, int] = (0, -1), limit: int = PAGE
    ) -> list[description.EventRow]:
        """Return entries of one generation, or of all, behind the place ``after`` (generation, seq)."""
        run = self._memory.runs.get(run_id)
        rows = [] if run is None else [row for row in entry_rows(run, generation) if row[:2] > after]
        return [
            description.EventRow(number, seq, entry.at_us, entry.type, entry.key, entry.payload)
            for number, seq, entry in rows[:limit]
        ]

    async def roots(
        self,
        *,
        workflow: str | None = None,
        namespace: str | None = None,
        state: str | None = None,
        before: description.RunRow | None = None,
        limit: int = 100,
    ) -> list[description.RunRow]:
        """Return root runs, newest first, older than ``before``."""
        rows = [self._described(run) for run in self._memory.runs.values() if run.depth == 0]
        rows = [
            row
            for row in rows
            if workflow in (None, row.workflow)
            and namespace in (None, row.namespace)
            and state in (None, row.state)
            and (before is None or _place(row) < _place(before))
        ]
        return sorted(rows, key=_place, reverse=True)[:limit]

    async def below(
        self, run_id: str, *, levels: int | None = None, after: str = "", limit: int = PAGE
    ) -> list[description.RunRow]:
        """Return runs below one in the order of ids, ``levels`` deep (1: its children), behind id ``after``."""
        found: list[RunRow] = []
        for depth, level in enumerate(self._memory.descendants(run_id), 1):
            if levels is not None and depth > levels:
                break
            found += level
        ids = sorted(run.run_id for run in found if run.run_id > after)[:limit]
        return await self.describe_all(ids)

    async def outline(
        self, run_id: str, *, levels: int | None = None, after: str = "", limit: int = PAGE
    ) -> list[description.RunRow]:
        """Return runs as ``below`` does, without the values that authors gave them."""
        rows = await self.below(run_id, levels=levels, after=after, limit=limit)
        return [replace(row, input=b"null", result=None, published=None, attributes=None) for row in rows]

    def _described(self, run: RunRow) -> description.RunRow:
        due_us, reason = self._memory.cancellations.get(run.run_id, (None, None))
        if run.run_id in self._memory.timeouts:
            due_us = reason = None
        return replace(described(run), stop_by=_time(due_us), stop_reason=reason)


def described(run: RunRow) -> description.RunRow:
    state = run.state
    if run.live and state != "parked":
        state = "running" if run.owner is not None else "pending" if run.started_us is None else "suspended"
    created = _time(run.created_us)
    assert created is not None
    return description.RunRow(
        run.run_id,
        run.workflow,
        run.version,
        state,
        run.generation,
        run.depth,
        run.run_id.rpartition("/")[0] or None,
        run.namespace,
        run.owner,
        run.waiting_for,
        created,
        _time(run.started_us),
        _time(run.completed_us),
        _time(run.wakeup_us),
        run.input,
        run.result,
        run.error,
        run.published,
        None if run.attributes is None else dump(run.attributes),
        run.trace,
    )


def _place(row: description.RunRow) -> tuple[datetime, str]:
    return row.created_at, row.run_id


def _time(at_us: int | None) -> datetime | None:
    return None if at_us is None else _EPOCH + timedelta(microseconds=at_us)
