"""Rows of the tables, to and from values."""

from __future__ import annotations

from typing import Any

from continuum._core.jsontext import dump
from continuum._journal.commit import Claimed, End, NewRoot
from continuum._journal.render import LAST_US


def claimed_row(row: tuple[Any, ...]) -> Claimed:
    """Return what ``claim`` and ``reclaim`` give of a run."""
    return Claimed(*row)


def end_row(ended: bool, state: str, result: bytes | None, error: bytes | None) -> End | None:
    """Return how a run ended, or None. A completed run's result is never SQL's null: that is JSON's."""
    if not ended:
        return None
    return End(state, result if result is not None or state != "completed" else b"null", error)


def root_row(run: NewRoot) -> bytes:
    """Return a root run as a row of the statement that starts runs."""
    return b'{"r":%b,"wf":%b,"v":%d,"inp":%b,"ns":%b,"attr":%b,"trace":%b,"pri":%d,"at":%b}' % (
        dump(run.run_id),
        dump(run.workflow),
        run.version,
        run.input,
        dump(run.namespace),
        run.attributes or b"null",
        dump(run.trace),
        run.priority,
        b"null" if run.wakeup_us is None else b"%d" % min(max(run.wakeup_us, 0), LAST_US),
    )
