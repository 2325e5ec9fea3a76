"""Commits as rows of JSON, ready to be put side by side into one statement's parameters.

The rule: rendering happens once, when a commit is handed in, and not while the flusher waits. Values are already
JSON and are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import assert_never

from continuum._core.effects import Message, NewRun
from continuum._core.entries import Entry, quoted
from continuum._core.jsontext import dump
from continuum._journal.arrays import bigint, integer, json, length, name, text
from continuum._journal.commit import (
    KEEP,
    Cancel,
    Commit,
    Complete,
    Continue,
    Fail,
    Keep,
    NewTask,
    Park,
    Passivate,
    Status,
)
from continuum.policies import Duration, Retry

# A child's result beyond this size is not copied into messages and entries: they refer to the child's row.
LARGEST_COPY = 1_000_000
BY_REFERENCE = "child_completed"
# 9999-12-30, so that no time zone reads it as the year 10000: what is due later than that is never due.
LAST_US = 253_402_128_000_000_000
TABLES = ("entries", "messages", "children", "consumed", "tasks", "discarded", "answers", "deadlines")


EntryRow = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
Row = bytes | EntryRow
"""An entry is a value for each column of its table, see ``arrays``; all other rows are JSON."""

_BESIDE = 100  # bytes of an entry beside its payload, about


class Rendered:
    """A commit's rows for each table, and what they weigh. ``standing``: the run's own row changes.

    ``lease`` is the run's id and token, see ``arrays``. ``details`` say as JSON how the run stands afterwards and
    whom the commit falls with. ``plain``: it is entries and nothing else, as most are, so there is nobody to be
    told of it but its worker.
    """

    __slots__ = ("commit", "count", "details", "lease", "plain", "rows", "size", "standing")

    def __init__(
        self,
        commit: Commit,
        lease: tuple[bytes, bytes],
        rows: Mapping[str, list[Row]],
        details: bytes,
        *,
        standing: bool,
        plain: bool,
    ) -> None:
        self.commit = commit
        self.lease = lease
        self.details = details
        self.rows = rows
        self.standing = standing
        self.plain = plain
        self.count = 1
        self.size = len(details)
        for found in rows.values():
            self.count += len(found)
            for row in found:
                self.size += len(row) if row.__class__ is bytes else _BESIDE + len(row[-1])  # type: ignore[arg-type]


_PLAIN = Commit("", 0, 0, 0)[5:]
"""What follows the entries in a commit that is nothing but entries."""


def render(commit: Commit, group: int | None) -> Rendered:
    """Return the rows of ``commit``; commits with one ``group`` number fall together."""
    # The same few thousand runs commit again and again, but one that ends does not.
    lease = (text if type(commit.status) is Complete else name)(commit.run_id), bigint(commit.token)
    rows: dict[str, list[Row]] = {}
    if commit.entries:
        rows["entries"] = entry_rows(lease[0], commit.generation, commit.seq, commit.entries)
    if group is None and commit.status is KEEP and commit[5:] == _PLAIN:
        return Rendered(commit, lease, rows, b"", standing=False, plain=True)
    return _rendered(commit, lease, rows, group)


def _rendered(
    commit: Commit, lease: tuple[bytes, bytes], rows: dict[str, list[Row]], group: int | None
) -> Rendered:
    status = commit.status
    run = dump(commit.run_id) if type(status) is Complete else run_text(commit.run_id)
    if commit.descendants != "leave" and not isinstance(status, Complete | Fail | Cancel):
        raise ValueError(f"run {commit.run_id!r} does not end here, and so does nothing below it")
    standing = status is not KEEP or commit.published is not None
    details = b""
    if standing or group is not None:
        number = b"null" if group is None else b"%d" % group
        published = b"" if commit.published is None else b',"say":true,"pub":%b' % commit.published
        details = b'{"r":%b,"grp":%b%b%b}' % (run, number, _status(status), published)
    if isinstance(status, Continue) and status.entries:
        rows.setdefault("entries", []).extend(entry_rows(lease[0], commit.generation + 1, 0, status.entries))
    if commit.messages:
        rows["messages"] = [_message(run, message) for message in commit.messages]
    if commit.children:
        rows["children"] = [_child(run, kid, at < commit.claimed) for at, kid in enumerate(commit.children)]
    if commit.consumed:
        rows["consumed"] = [b'{"r":%b,"id":%d}' % (run, number) for number in commit.consumed]
    if commit.tasks:
        rows["tasks"] = [_task(run, commit.generation, task) for task in commit.tasks]
    if commit.discarded:
        keys = [(run, commit.generation, dump(key)) for key in commit.discarded]
        rows["discarded"] = [b'{"r":%b,"g":%d,"k":%b}' % key for key in keys]
    if commit.answers:
        told = [(run, dump(answer.delivery_id), answer.payload) for answer in commit.answers]
        rows["answers"] = [b'{"r":%b,"d":%b,"p":%b}' % answer for answer in told]
    if commit.deadlines:
        due = [(run, dump(left.run_id), min(max(left.due_us, 0), LAST_US)) for left in commit.deadlines]
        rows["deadlines"] = [b'{"r":%b,"id":%b,"at":%d}' % left for left in due]
    return Rendered(commit, lease, rows, details, standing=standing, plain=False)


@lru_cache(maxsize=8192)
def run_text(run_id: str) -> bytes:
    """Return the id of a run that commits again as JSON text."""
    return dump(run_id)


def weight(row: Row) -> int:
    """Return about how many bytes a row takes on its way."""
    return len(row) if row.__class__ is bytes else _BESIDE + len(row[-1])  # type: ignore[arg-type]


def entry_rows(run: bytes, generation: int, seq: int, entries: tuple[Entry, ...]) -> list[Row]:
    """Return rows of the journal; the first entry has number ``seq``. ``run`` is its id as an element."""
    within = integer(generation)
    rows: list[Row] = []
    for number, entry in enumerate(entries, seq):
        kind, payload = entry.type, entry.payload
        if len(payload) > LARGEST_COPY:
            payload = copied(kind, payload)
        key = entry.key.encode()
        data = json(payload) if payload == b"null" or b"\\u" in payload else length(len(payload)) + payload
        rows.append((run, within, integer(number), bigint(entry.at_us), name(kind), length(len(key)) + key, data))
    return rows


def copied(kind: str, payload: bytes) -> bytes:
    """Return ``payload``, or null for a child's result that is too large to be kept twice."""
    return b"null" if kind == BY_REFERENCE and len(payload) > LARGEST_COPY else payload


def message_row(message: Message) -> bytes:
    """Return a message that no run sends."""
    delivery = b"" if message.delivery_id is None else b',"d":%b' % dump(message.delivery_id)
    return b'{"to":%b,"t":"%b","k":%b,"p":%b%b}' % (
        dump(message.run_id),
        message.type.encode(),
        dump(message.key),
        message.payload,
        delivery,
    )


def send_parts(messages: Iterable[Message]) -> frozenset[str]:
    """Return which parts of the statement that sends are needed."""
    named = any(message.delivery_id is not None for message in messages)
    return frozenset(("deliveries",)) if named else frozenset()


def _message(run: bytes, message: Message) -> bytes:
    return b'{"r":%b,"to":%b,"t":"%b","k":%b,"p":%b}' % (
        run,
        dump(message.run_id),
        message.type.encode(),
        dump(message.key),
        copied(message.type, message.payload),
    )


def _child(run: bytes, child: NewRun, mine: bool) -> bytes:
    options = child.options
    row = b'{"r":%b,"id":%b,"wf":%b,"v":%d,"d":%d,"mine":%b,"pri":%d,"close":"%b","inp":%b' % (
        run,
        dump(child.run_id),
        quoted(child.workflow),
        child.version,
        child.depth,
        b"true" if mine else b"false",
        min(max(options.priority or 0, 0), 1000),
        options.on_parent_close.encode(),
        child.input,
    )
    if options.attributes:
        row += b',"attr":%b' % dump(dict(options.attributes))
    if options.retry is not None:
        row += b',"retry":%b' % retry_text(options.retry)
    return row + b"}"


def retry_text(retry: Retry) -> bytes:
    """Return a retry policy as JSON, durations in seconds."""
    return dump(
        {
            "max_attempts": retry.max_attempts,
            "initial_s": _seconds(retry.initial),
            "backoff": retry.backoff,
            "max_interval_s": _seconds(retry.max_interval),
            "jitter": retry.jitter,
            "non_retryable": [kind for kind in retry.non_retryable if isinstance(kind, str)],
        }
    )


def _seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _task(run: bytes, generation: int, task: NewTask) -> bytes:
    return b'{"r":%b,"g":%d,"k":%b,"q":%b,"n":%b,"max":%d,"pri":%d,"opt":%b,"p":%b}' % (
        run,
        generation,
        dump(task.key),
        dump(task.queue),
        dump(task.name),
        task.max_attempts,
        min(max(task.priority, 0), 1000),
        task.options or b"null",
        task.input,
    )


def _status(status: Status) -> bytes:
    match status:
        case Keep():
            return b',"op":"n"'
        case Passivate(wakeup_us, waiting_for):
            at = b"null" if wakeup_us is None else b"%d" % min(max(wakeup_us, 0), LAST_US)
            return b',"op":"p","at":%b,"wf":%b' % (at, dump(waiting_for))
        case Complete(result):
            return b',"op":"t","st":"completed","res":%b' % result
        case Fail(error):
            return b',"op":"t","st":"failed","err":%b' % error
        case Cancel(error):
            return b',"op":"t","st":"cancelled","err":%b' % error
        case Continue(version, _, None):
            return b',"op":"c","v":%d' % version
        case Continue(version, _, at_us, waiting_for):
            values = (version, min(max(at_us or 0, 0), LAST_US), dump(waiting_for))
            return b',"op":"w","v":%d,"at":%d,"wf":%b' % values
        case Park(error):
            return b',"op":"d","err":%b' % error
        case _:
            assert_never(status)
