"""Comparing a run's journal with what a test expects.

The rule: one line for each entry, so that a difference reads as any other diff.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from continuum.descriptions import Event

__all__ = ["Expected", "assert_history"]

Expected = tuple[str, str] | tuple[str, str, Mapping[str, Any]]


def assert_history(events: Sequence[Event], expected: Sequence[Expected]) -> None:
    """Compare a journal with the entries it should have: type and key of each, fields of the payload if given.

    Raises ``AssertionError`` with a diff.

    >>> from datetime import UTC, datetime
    >>> at = datetime(2030, 1, 1, tzinfo=UTC)
    >>> sent = Event(1, 1, "activity_completed", "send_mail-1", at, {"result": "sent"})
    >>> assert_history([sent], [("activity_completed", "send_mail-1")])
    >>> assert_history([sent], [("activity_completed", "send_mail-1", {"result": "sent"})])
    """
    wanted = [_line(entry[0], entry[1], entry[2] if len(entry) == 3 else None) for entry in expected]
    found: list[str] = []
    for at, event in enumerate(events):
        entry = expected[at] if at < len(expected) else ()
        found.append(_line(event.type, event.key, _asked_for(event, entry[2]) if len(entry) == 3 else None))
    if found != wanted:
        lines = difflib.ndiff(wanted, found)
        shown = "\n".join(line for line in lines if not line.startswith("?"))
        raise AssertionError(f"the run's journal is another one (- expected, + found):\n{shown}")


def _asked_for(event: Event, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return those fields of the payload that are expected."""
    return {name: event.payload[name] for name in wanted if name in event.payload}


def _line(kind: str, key: str, payload: Mapping[str, Any] | None = None) -> str:
    text = f"{kind} {key}".rstrip()
    return text if payload is None else f"{text} {json.dumps(payload, ensure_ascii=False, default=str)}"
