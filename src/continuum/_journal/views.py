"""Reading the journal: for people, clients and tools. Nothing here is needed to run a workflow.

The rule: reads lock nothing, are bounded by ``limit``, and go on from the last row by key, never by offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from continuum._journal.description import EventRow, RunRow
from continuum._journal.lane import Lanes
from continuum._journal.statements import statement
from continuum._journal.storable import is_storable

PAGE = 1_000


class Views:
    """Reads on whatever connection is free."""

    def __init__(self, lanes: Lanes, schema: str) -> None:
        self._lanes = lanes
        self._schema = schema

    async def describe(self, run_id: str) -> RunRow | None:
        """Return one run, or None."""
        found = await self.describe_all([run_id])
        return found[0] if found else None

    async def describe_all(self, run_ids: Sequence[str]) -> list[RunRow]:
        """Return those of the runs that exist, in the order given."""
        rows = await self._lanes.read(
            statement("describe", self._schema), {"run_ids": list(filter(is_storable, run_ids))}
        )
        found = {row[0]: _run_row(RunRow(*row)) for row in rows}
        return [found[run_id] for run_id in run_ids if run_id in found]

    async def declared(self, run_id: str) -> tuple[str, tuple[str, ...]] | None:
        """Return a run's workflow and the signals it declares, or None if any may be sent, or nobody knows."""
        if not is_storable(run_id):
            return None
        rows = await self._lanes.read(statement("declared", self._schema), {"run_id": run_id})
        return (rows[0][0], tuple(rows[0][1])) if rows else None

    async def history(
        self, run_id: str, generation: int | None = None, *, after: tuple[int, int] = (0, -1), limit: int = PAGE
    ) -> list[EventRow]:
        """Return entries of one generation, or of all, behind the place ``after`` (generation, seq)."""
        after = max(after, (generation or 0, -1))  # else those before it are walked over
        values = {
            "run_id": run_id,
            "generation": generation,
            "after_generation": after[0],
            "after_seq": after[1],
            "limit": limit,
        }
        return [EventRow(*row) for row in await self._lanes.read(statement("history", self._schema), values)]

    async def roots(
        self,
        *,
        workflow: str | None = None,
        namespace: str | None = None,
        state: str | None = None,
        before: RunRow | None = None,
        limit: int = 100,
    ) -> list[RunRow]:
        """Return root runs, newest first, older than ``before``."""
        values = {
            "workflow": workflow,
            "namespace": namespace,
            "state": state,
            "before_at": None if before is None else before.created_at,
            "before_id": None if before is None else before.run_id,
            "limit": limit,
        }
        parts = frozenset((state,)) if state in ("failed", "parked") else frozenset[str]()
        rows = await self._lanes.read(statement("list_roots", self._schema, parts), values)
        return await self.describe_all([row[0] for row in rows])

    async def below(
        self, run_id: str, *, levels: int | None = None, after: str = "", limit: int = PAGE
    ) -> list[RunRow]:
        """Return runs below one in the order of ids, ``levels`` deep (1: its children), behind id ``after``."""
        rows = await self._lanes.read(statement("list_below", self._schema), _range(run_id, levels, after, limit))
        return await self.describe_all([row[0] for row in rows])

    async def outline(
        self, run_id: str, *, levels: int | None = None, after: str = "", limit: int = PAGE
    ) -> list[RunRow]:
        """Return runs as ``below`` does, without the values that authors gave them."""
        rows = await self._lanes.read(
            statement("outline_below", self._schema), _range(run_id, levels, after, limit)
        )
        return [RunRow(*row) for row in rows]


def _range(run_id: str, levels: int | None, after: str, limit: int) -> dict[str, object]:
    depth = 32_767 if levels is None else run_id.count("/") + levels
    return {"run_id": run_id, "after_id": after, "depth": depth, "limit": limit}


def _run_row(row: RunRow) -> RunRow:
    """A completed run's result is never SQL's null: that is JSON's."""
    return replace(row, result=b"null") if row.state == "completed" and row.result is None else row
