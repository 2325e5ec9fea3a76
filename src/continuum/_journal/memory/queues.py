"""Activities on named queues, in memory. An attempt's number is its fencing token."""

from __future__ import annotations

from collections.abc import Sequence

from continuum._core.effects import Message
from continuum._core.failure import encode_failure
from continuum._journal.commit import ClaimedTask
from continuum._journal.memory.tables import HOUR_US, Tables, TaskRow
from continuum.errors import Failure

_LOST = Failure("WorkerLost", "the worker of the last attempt was not heard of in time", timed_out=True)


def claim(tables: Tables, worker: str, queue: str, limit: int, lease_s: float) -> list[ClaimedTask]:
    """Begin attempts of due tasks of a queue, the longest due first."""
    now = tables.now_us()
    if tables.alive(worker) is None:
        return []
    due = [task for task in tables.tasks.values() if task.queue == queue and task.owner is None]
    due = sorted((task for task in due if task.run_us <= now), key=_run_us)[:limit]
    for task in due:
        task.owner, task.attempt = worker, task.attempt + 1
        task.lease_until_us = now + int(lease_s * 1_000_000)
    return [_claimed(task) for task in due]


def renew(
    tables: Tables, worker: str, beats: Sequence[tuple[ClaimedTask, bytes | None]], lease_s: float
) -> set[int]:
    """Prolong attempts; an id that does not come back is no longer this worker's."""
    said = {task.task_id: details for task, details in beats}
    found = _mine(tables, worker, [task for task, _ in beats])
    for task in found:
        task.lease_until_us = tables.now_us() + int(lease_s * 1_000_000)
        task.details = said[task.task_id] if said[task.task_id] is not None else task.details
    return {task.task_id for task in found}


def report(tables: Tables, worker: str, outcomes: Sequence[tuple[ClaimedTask, Message]]) -> dict[int, str]:
    """End attempts with their outcomes; return the run of each task that counted."""
    said = {task.task_id: message for task, message in outcomes}
    found = _mine(tables, worker, [task for task, _ in outcomes])
    for task in found:
        message = said[task.task_id]
        _end(tables, task, message.type, message.payload)
    return {task.task_id: task.run_id for task in found}


def retry(tables: Tables, worker: str, retries: Sequence[tuple[ClaimedTask, float]]) -> dict[int, str]:
    """Put failed attempts back, due after a delay; return the queue of each task that counted."""
    delays = {task.task_id: delay_s for task, delay_s in retries}
    found = _mine(tables, worker, [task for task, _ in retries])
    for task in found:
        task.owner, task.run_us = None, tables.now_us() + int(delays[task.task_id] * 1_000_000)
    return {task.task_id: task.queue for task in found}


def requeue(tables: Tables, worker_id: str, limit: int) -> tuple[int, set[str], set[str]]:
    """End attempts whose lease has passed: how many, the queues that have work, the runs that have mail."""
    now, worker = tables.now_us(), tables.alive(worker_id)
    if worker is None or worker.connected_us > now - worker.lease_us:
        return 0, set(), set()
    over = [task for task in tables.tasks.values() if task.owner is not None and task.lease_until_us < now]
    over = sorted(over, key=_lease_until_us)[:limit]
    queues, run_ids = set[str](), set[str]()
    for task in over:
        if task.attempt < task.max_attempts:
            task.owner, task.run_us = None, now - task.priority * HOUR_US
            queues.add(task.queue)
        else:
            failed = b'{"name":"%b","input":%b,"error":%b}'
            _end(tables, task, "activity_failed", failed % (task.name.encode(), task.input, encode_failure(_LOST)))
            run_ids.add(task.run_id)
    return len(over), queues, run_ids


def _mine(tables: Tables, worker: str, tasks: Sequence[ClaimedTask]) -> list[TaskRow]:
    rows = [(tables.tasks.get(task.task_id), task.attempt) for task in tasks]
    return [row for row, attempt in rows if row is not None and row.owner == worker and row.attempt == attempt]


def _end(tables: Tables, task: TaskRow, kind: str, payload: bytes) -> None:
    del tables.tasks[task.task_id]
    run = tables.runs.get(task.run_id)
    if run is not None and run.live and run.generation == task.generation:
        tables.put(task.run_id, kind, task.key, payload, task.generation)


def _claimed(task: TaskRow) -> ClaimedTask:
    return ClaimedTask(
        task.task_id,
        task.run_id,
        task.generation,
        task.key,
        task.queue,
        task.name,
        task.attempt,
        task.max_attempts,
        task.input,
        task.options,
        task.details,
    )


def _run_us(task: TaskRow) -> int:
    return task.run_us


def _lease_until_us(task: TaskRow) -> int:
    return task.lease_until_us
