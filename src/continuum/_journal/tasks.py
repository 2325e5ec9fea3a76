"""Activities on named queues: claim, renew, report, retry, requeue.

The rule: an attempt's number is its fencing token. Whatever an older attempt says changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from continuum._core.effects import Message
from continuum._core.failure import encode_failure
from continuum._core.jsontext import dump
from continuum._journal.batch import array
from continuum._journal.commit import ClaimedTask
from continuum._journal.connections import JsonText
from continuum._journal.hints import Hints
from continuum._journal.lane import Lanes
from continuum._journal.statements import statement
from continuum.errors import Failure

_LOST = Failure("WorkerLost", "the worker of the last attempt was not heard of in time", timed_out=True)


class Tasks:
    """The queues, as one worker sees them."""

    def __init__(self, lanes: Lanes, hints: Hints, schema: str) -> None:
        self._lanes = lanes
        self._hints = hints
        self._schema = schema

    async def claim(self, worker: str, queue: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Begin attempts of due tasks of a queue."""
        values = {"worker": worker, "queue": queue, "limit": limit, "lease_s": lease_s}
        rows = await self._lanes.write(statement("claim_tasks", self._schema), values)
        return [ClaimedTask(*row) for row in rows]

    async def renew(
        self, worker: str, beats: Sequence[tuple[ClaimedTask, bytes | None]], lease_s: float
    ) -> set[int]:
        """Prolong attempts; an id that does not come back is no longer this worker's."""
        rows = [b'{"id":%d,"a":%d,"d":%b}' % (task.task_id, task.attempt, said or b"null") for task, said in beats]
        values = {"worker": worker, "beats": array(rows), "lease_s": lease_s}
        return {row[0] for row in await self._lanes.write(statement("renew_tasks", self._schema), values)}

    async def report(self, worker: str, outcomes: Sequence[tuple[ClaimedTask, Message]]) -> set[int]:
        """End attempts with their outcomes; return the ids that counted."""
        rows = [
            b'{"id":%d,"a":%d,"t":"%b","p":%b}' % (task.task_id, task.attempt, said.type.encode(), said.payload)
            for task, said in outcomes
        ]
        found = await self._lanes.write(
            statement("report_tasks", self._schema), {"worker": worker, "reports": array(rows)}
        )
        self._hints.mail((), {row[1] for row in found})
        return {row[0] for row in found}

    async def retry(self, worker: str, retries: Sequence[tuple[ClaimedTask, float]]) -> set[int]:
        """Put failed attempts back, due after a delay in seconds; return the ids that counted."""
        rows = [
            b'{"id":%d,"a":%d,"s":%b}' % (task.task_id, task.attempt, dump(delay_s)) for task, delay_s in retries
        ]
        found = await self._lanes.write(
            statement("retry_tasks", self._schema), {"worker": worker, "retries": array(rows)}
        )
        self._hints.say("tasks", {row[1] for row in found})
        return {row[0] for row in found}

    async def requeue(self, worker: str, limit: int) -> int:
        """End attempts whose lease has passed; return how many."""
        values = {"worker": worker, "limit": limit, "error": JsonText(encode_failure(_LOST))}
        rows = await self._lanes.write(statement("requeue_tasks", self._schema), values)
        queues, run_ids, found = rows[0]
        self._hints.say("tasks", queues)
        self._hints.mail((), run_ids)
        return int(found)
