"""What is done now and then for all: the slow sweep, and the deletion of what nobody needs any more.

The rule: it is never in a hurry. It skips what others hold, and what it did not come to is there the next time.
"""

from __future__ import annotations

from typing import Any

from continuum._journal.commit import SWEEP_EVERY_S, Swept
from continuum._journal.hints import Hints
from continuum._journal.lane import Lane, Lanes, OutcomeUnknown
from continuum._journal.statements import statement
from continuum._journal.storable import is_storable
from continuum.errors import DatabaseUnreachable, RunNotFound

PRUNE_S = 3_600.0  # a tree may have a million runs
LONGEST_AGE_S = 3_000_000_000.0  # a hundred years: what is older cannot be taken from a time of the database


class Upkeep:
    """Sweeps on whatever connection is free, and prunes on one of its own, made for the purpose."""

    def __init__(self, url: str, lanes: Lanes, hints: Hints, *, schema: str, prepared: bool | None) -> None:
        self._url = url
        self._lanes = lanes
        self._hints = hints
        self._schema = schema
        self._prepared = prepared

    async def sweep(self, *, every_s: float = SWEEP_EVERY_S, budget: int = 1000) -> Swept | None:
        """Do one part of the slow sweep, unless it was done lately."""
        values = {"every": every_s, "budget": budget}
        rows = await self._lanes.write(statement("sweep", self._schema), values)
        if not rows:
            return None
        armed, dropped, finished, ready = rows[0]
        self._hints.say("ready", ready)
        return Swept(armed, dropped, finished)

    async def prune(self, older_than_s: float, limit: int = 100) -> int:
        """Delete whole trees that have ended; return how many."""
        age_s = min(max(older_than_s, 0.0), LONGEST_AGE_S)
        ((roots,),) = await self._alone("prune", older_than_s=age_s, limit=max(limit, 0))
        return int(roots)

    async def prune_generations(self, run_id: str, keep: int) -> int:
        """Delete the journals of all generations of a run but the newest; return how many entries they had."""
        check_keep(keep)
        rows = []
        if is_storable(run_id):
            rows = await self._alone("prune_generations", run_id=run_id, keep=min(keep, 2**31 - 1))
        if not rows:
            raise RunNotFound(run_id)
        return int(rows[0][0])

    async def _alone(self, file: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement that may take long, on a connection for it alone."""
        lane = Lane(self._url, name="prune", prepared=self._prepared, answer_s=PRUNE_S)
        try:
            return await lane.rows_now(statement(file, self._schema), values)
        except OutcomeUnknown as error:
            raise DatabaseUnreachable(f"whether something was pruned is not known: {error}") from error
        finally:
            await lane.close()


def check_keep(keep: int) -> None:
    """Raise ``ValueError`` unless some generation is kept: the current one always is."""
    if keep < 1:
        raise ValueError(f"a run keeps at least one generation, not {keep}")
