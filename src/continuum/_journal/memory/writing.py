"""Commits, as the statement of the journal on Postgres writes them: each whole, or nothing of it.

The rule: first all commits of a batch are judged, then what is read is read, and only then anything is written, so
that one commit sees of another no more than in Postgres, where they share one statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from continuum._core.effects import Deadline, Message, NewRun
from continuum._core.entries import Entry
from continuum._journal.commit import (
    Cancel,
    Commit,
    Committed,
    Complete,
    Continue,
    Fail,
    Fenced,
    Keep,
    NewTask,
    Outcome,
    Park,
    Passivate,
    Stale,
    Undone,
)
from continuum._journal.endings import reaches_below, trees
from continuum._journal.memory.cascade import Cascade, bring_about
from continuum._journal.memory.tables import HOUR_US, RunRow, Tables, TaskRow
from continuum._journal.render import LAST_US, retry_text
from continuum._journal.storable import is_storable

Group = Sequence[Commit]
MOST_PRIORITY = 1000


@dataclass(slots=True)
class Written:
    """What became of a batch: outcomes by group (None: somebody's lock holds it up), and who should hear of it."""

    outcomes: list[tuple[Outcome, ...] | None] = field(default_factory=list[tuple[Outcome, ...] | None])
    near: dict[str, None] = field(default_factory=dict[str, None])
    far: dict[str, None] = field(default_factory=dict[str, None])
    cascades: list[Cascade] = field(default_factory=list[Cascade])


def flush(tables: Tables, worker: str | None, groups: Sequence[Group]) -> Written:
    """Write groups of commits. The outcomes of a group are None where a lock holds it up: ask again."""
    done = Written()
    stand = [_stand(tables, worker, group) for group in groups]
    written = [group for group, found in zip(groups, stand, strict=True) if found is _WRITTEN]
    receivers = {to for to in _receivers(written) if (run := tables.runs.get(to)) is not None and run.live}
    existed = {kid.run_id for kid in _children(written) if kid.run_id in tables.runs}
    receivers.update(kid.run_id for kid in _children(written) if kid.run_id not in existed)
    now = tables.now_us()
    for group, found in zip(groups, stand, strict=True):
        if found is not _WRITTEN:
            done.outcomes.append(found)
            continue
        for commit in group:
            _write(tables, worker, commit, existed, receivers, done)
        done.outcomes.append(tuple([_committed(now, commit, existed, receivers) for commit in group]))
    for group in written:
        if any(map(reaches_below, group)):
            done.cascades.append(bring_about(tables, group))
    return done


_WRITTEN: tuple[Outcome, ...] = (Committed(0),)  # stands for "let it be written"


def _stand(tables: Tables, worker: str | None, group: Group) -> tuple[Outcome, ...] | None:
    """Judge a group: to be written, held up, or what became of each of its members."""
    if not tables.locked.isdisjoint(_touched(tables, group)):
        return None
    own = [_judge(tables, worker, commit) for commit in group]
    if all(found is None for found in own):
        return _WRITTEN
    return tuple([Undone() if found is None else found for found in own])


def _touched(tables: Tables, group: Group) -> Iterable[str]:
    for commit in group:
        yield commit.run_id
    for run_id in trees(group):
        yield run_id
        for level in tables.descendants(run_id):
            yield from (run.run_id for run in level if run.live)


def _judge(tables: Tables, worker: str | None, commit: Commit) -> Outcome | None:
    """Return why a commit cannot be written, if it cannot."""
    run = tables.runs.get(commit.run_id)
    if run is None or run.owner is None or run.owner != worker or run.token != commit.token:
        return Fenced()
    box = tables.inbox.get(commit.run_id, {})
    if any(number not in box for number in commit.consumed):
        return Stale()
    taken = run.journal.get(commit.generation, {})
    for number in range(commit.seq, commit.seq + len(commit.entries)):
        if number in taken:
            return Stale()
    return None


def fault(commit: Commit) -> str:
    """Return why no journal could hold a commit, or nothing."""
    status = commit.status
    entries: list[Entry] = [*commit.entries, *(status.entries if isinstance(status, Continue) else ())]
    texts = [text for entry in entries for text in (entry.type, entry.key)]
    values = [entry.payload for entry in entries]
    for message in commit.messages:
        texts += [message.run_id, message.type, message.key]
        values.append(message.payload)
    for kid in commit.children:
        texts += [kid.run_id, kid.workflow]
        values.append(kid.input)
    for task in commit.tasks:
        texts += [task.key, task.queue, task.name]
        values += [task.input, *([task.options] if task.options is not None else ())]
    match status:
        case Complete(value) | Fail(value) | Cancel(value) | Park(value):
            values.append(value)
        case Passivate(_, waiting_for) | Continue(_, _, _, waiting_for):
            texts.append(waiting_for)
        case Keep():
            pass
    values += [commit.published] if commit.published is not None else []
    texts += [answer.delivery_id for answer in commit.answers]
    texts += [left.run_id for left in commit.deadlines]
    values += [answer.payload for answer in commit.answers]
    if commit.descendants != "leave" and not isinstance(status, Complete | Fail | Cancel):
        return f"run {commit.run_id!r} does not end here, and so does nothing below it"
    return next((f"text that cannot be stored: {text!r}" for text in texts if not is_storable(text)), "") or next(
        (f"not JSON: {value[:80]!r}" for value in values if not _is_json(value)), ""
    )


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _receivers(groups: Iterable[Group]) -> Iterable[str]:
    return (message.run_id for group in groups for commit in group for message in commit.messages)


def _children(groups: Iterable[Group]) -> Iterable[NewRun]:
    return (kid for group in groups for commit in group for kid in commit.children)


def _committed(now_us: int, commit: Commit, existed: set[str], receivers: set[str]) -> Committed:
    there = tuple(kid.run_id for kid in commit.children if kid.run_id in existed)
    lost = tuple(message.run_id for message in commit.messages if message.run_id not in receivers)
    return Committed(now_us, there, lost)


def _write(
    tables: Tables, worker: str | None, commit: Commit, existed: set[str], receivers: set[str], done: Written
) -> None:
    run = tables.runs[commit.run_id]
    for number, entry in enumerate(commit.entries, commit.seq):
        run.journal.setdefault(commit.generation, {})[number] = entry
    for number in commit.consumed:
        tables.take(run.run_id, number)
    for at, kid in enumerate(commit.children):
        if kid.run_id not in existed:
            _bear(tables, run, kid, worker if at < commit.claimed else None)
    for message in commit.messages:
        if message.run_id in receivers:
            _send(tables, worker, message, done)
    for task in commit.tasks:
        _queue(tables, commit, task)
    dropped = {(run.run_id, commit.generation, key) for key in commit.discarded}
    for task_id in [row.task_id for row in tables.tasks.values() if dropped and row_key(row) in dropped]:
        del tables.tasks[task_id]
    for answer in commit.answers:
        named = (run.run_id, answer.delivery_id)
        if named in tables.deliveries and tables.deliveries[named] is None:
            tables.deliveries[named] = answer.payload
    for left in commit.deadlines:
        _leave(tables, left)
    if commit.published is not None:
        run.published = commit.published
    _stand_anew(tables, run, commit)


def _leave(tables: Tables, deadline: Deadline) -> None:
    """Note a timeout that the parent keeps no longer; the earlier one counts."""
    run_id, due_us = deadline.run_id, min(max(deadline.due_us, 0), LAST_US)
    if run_id in tables.cancellations:
        before_us, reason = tables.cancellations[run_id]
        tables.cancellations[run_id] = min(before_us, due_us), reason
    else:
        tables.cancellations[run_id] = due_us, "timeout"
        tables.timeouts.add(run_id)


def _queue(tables: Tables, commit: Commit, task: NewTask) -> None:
    named = (commit.run_id, commit.generation, task.key)
    if any(row_key(row) == named for row in tables.tasks.values()):
        return
    tables.messages += 1
    priority = min(max(task.priority, 0), MOST_PRIORITY)
    tables.tasks[tables.messages] = TaskRow(
        tables.messages,
        *named,
        task.queue,
        task.name,
        task.input,
        task.max_attempts,
        priority,
        task.options,
        tables.now_us() - priority * HOUR_US,
    )


def row_key(task: TaskRow) -> tuple[str, int, str]:
    """Return what names a task within a journal."""
    return task.run_id, task.generation, task.key


def _bear(tables: Tables, parent: RunRow, kid: NewRun, owner: str | None) -> None:
    options = kid.options
    priority = min(max(options.priority or 0, 0), MOST_PRIORITY)
    attributes = parent.attributes
    if options.attributes:
        attributes = {**(attributes or {}), **options.attributes}
    now = tables.now_us()
    run = RunRow(
        kid.run_id,
        kid.workflow,
        kid.version,
        kid.input,
        kid.depth,
        now,
        parent.namespace,
        attributes,
        parent.trace,
        priority,
        None if options.retry is None else retry_text(options.retry),
        options.on_parent_close,
    )
    tables.add(run)
    if owner is None:
        tables.arm_now(run)
    else:
        run.state, run.token, run.started_us = "running", 1, now
        tables.give(run, owner)


def _send(tables: Tables, worker: str | None, message: Message, done: Written) -> None:
    tables.put(message.run_id, message.type, message.key, message.payload)
    target = tables.runs[message.run_id]
    (done.near if target.owner == worker else done.far)[message.run_id] = None


def _stand_anew(tables: Tables, run: RunRow, commit: Commit) -> None:
    """Let a run stand as its commit says."""
    status = commit.status
    if isinstance(status, Keep):
        return
    run.waiting_for, run.suspected, run.deaths, run.wakeup_us = None, False, 0, None
    run.result = run.error = None
    match status:
        case Continue(version, entries, wakeup_us, waiting_for):
            run.generation, run.version = run.generation + 1, version
            run.journal[run.generation] = dict(enumerate(entries))
            if wakeup_us is None:
                return
            run.state, run.waiting_for = "pending", waiting_for
            tables.arm(run, min(max(wakeup_us, 0), LAST_US))
        case Passivate(wakeup_us, waiting_for):
            run.state, run.waiting_for = "suspended", waiting_for
            tables.arm(run, None if wakeup_us is None else min(max(wakeup_us, 0), LAST_US))
        case Park(error):
            run.state, run.error = "parked", error
        case Complete(result):
            run.state, run.result, run.completed_us = "completed", result, tables.now_us()
        case Fail(error):
            run.state, run.error, run.completed_us = "failed", error, tables.now_us()
        case Cancel(error):
            run.state, run.error, run.completed_us = "cancelled", error, tables.now_us()
    tables.give(run, None)
