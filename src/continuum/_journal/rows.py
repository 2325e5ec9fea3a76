"""Rows of the tables, to and from values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from continuum._core.jsontext import dump
from continuum._journal.batch import array
from continuum._journal.commit import Announcement, Claimed, Claims, End, NewRoot
from continuum._journal.connections import JsonText, one_line
from continuum._journal.render import LAST_US
from continuum.errors import DatabaseRefused

T = TypeVar("T")


def claimed_row(row: tuple[Any, ...]) -> Claimed:
    """Return what ``claim`` and ``reclaim`` give of a run."""
    return Claimed(*row)


def claims(rows: list[tuple[Any, ...]]) -> Claims:
    """Return what ``claim`` gives. When the next run is due stands in every row, without runs in a row alone."""
    due_in_s: float | None = rows[0][-1]
    return Claims([claimed_row(row[:-1]) for row in rows if row[0] is not None], due_in_s)


def end_row(ended: bool, state: str, result: bytes | None, error: bytes | None) -> End | None:
    """Return how a run ended, or None. A completed run's result is never SQL's null: that is JSON's."""
    if not ended:
        return None
    return End(state, result if result is not None or state != "completed" else b"null", error)


def announcement_row(found: Announcement) -> bytes:
    """Return a definition as a row of the statement that announces."""
    return b'{"kind":%b,"name":%b,"version":%d,"schemas":%b}' % (
        dump(found.kind),
        dump(found.name),
        found.version,
        found.schemas or b"null",
    )


def encoded(row: Callable[[T], bytes], values: Iterable[T]) -> list[bytes]:
    """Return a row of JSON for each value. Raises ``DatabaseRefused`` for text that no encoding has."""
    try:
        return [row(value) for value in values]
    except UnicodeError as error:
        raise DatabaseRefused(f"text that no encoding has: {one_line(error)}") from error


def rendered(row: Callable[[T], bytes], values: Iterable[T]) -> JsonText:
    """Return ``values`` as one JSON array. Raises as ``encoded`` does."""
    return array(encoded(row, values))


def root_row(run: NewRoot) -> bytes:
    """Return a root run as a row of the statement that starts runs."""
    return b'{"r":%b,"wf":%b,"v":%d,"inp":%b,"ns":%b,"attr":%b,"trace":%b,"pri":%d,"at":%b}' % (
        dump(run.run_id),
        dump(run.workflow),
        run.version,
        run.input,
        dump(run.namespace),
        run.attributes or b"null",
        b"null" if run.trace is None else dump(run.trace),
        run.priority,
        b"null" if run.wakeup_us is None else b"%d" % min(max(run.wakeup_us, 0), LAST_US),
    )
