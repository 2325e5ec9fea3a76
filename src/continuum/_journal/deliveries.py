"""Messages under ids of their senders': what was sent under an id before, and whether that is the same message.

The rule: an id of a run is one message for good, of one kind and one name. Sent again it counts as sent, also
after the run has ended; sent for something else it is refused. What a row says was sent never changes, so it may
be read after the statement that met it: that one does not see a row that another transaction committed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from continuum._core.effects import Message
from continuum._journal.cascade import Step, Steps
from continuum._journal.hints import SILENT, Telling
from continuum._journal.render import message_row, send_parts
from continuum._journal.rows import rendered
from continuum._journal.statements import statement
from continuum._journal.storable import is_storable
from continuum.errors import MessageIdTaken

ALL, DELIVERIES = frozenset(("all",)), "deliveries"


@dataclass(frozen=True, slots=True)
class Sent:
    """Who was reached, who was not and in which state (None: no such run), and the id that was taken, if any."""

    reached: tuple[str, ...]
    missed: dict[str, str | None]
    taken: MessageIdTaken | None


def kind_and_name(message: Message) -> str:
    """Return what a message is, as ``deliveries.message`` has it: ``signal paid``, ``update set_address``."""
    return f"{message.type.partition('_')[0]} {message.key}"


def told_apart(
    messages: Iterable[Message], known: dict[tuple[str, str], str]
) -> tuple[set[str], MessageIdTaken | None]:
    """Return the runs that have had a message under its id, and the first id that is another message's."""
    had: set[str] = set()
    for message in messages:
        of = known.get((message.run_id, message.delivery_id or ""))
        if of is None or message.delivery_id is None:
            continue
        if of != kind_and_name(message):
            return had, MessageIdTaken(message.run_id, message.delivery_id, of, kind_and_name(message))
        had.add(message.run_id)
    return had, None


def sending(
    schema: str, messages: Sequence[Message], telling: Telling = SILENT, *, whole: bool = False
) -> Steps[Sent]:
    """Put messages into the inboxes of live runs, but those that were sent before; all or, if ``whole``, none."""
    sendable = [message for message in messages if is_storable(message.run_id)]
    parts = send_parts(sendable) | telling.parts
    if whole:
        parts |= ALL
    values = {"messages": rendered(message_row, sendable), **telling.values}
    rows = yield Step(statement("send", schema, parts), values)
    missed: dict[str, str | None] = {message.run_id: None for message in messages}
    missed |= {row[0]: row[1] for row in rows if not row[2]}
    reached = tuple(row[0] for row in rows if row[2])
    for run_id in reached:
        del missed[run_id]
    new = {(row[0], found) for row in rows for found in row[3]} if DELIVERIES in parts else set[tuple[str, str]]()
    asked = _to_ask(sendable, new)
    if not asked:
        return Sent(reached, missed, None)
    known_of = {"run_ids": [run_id for run_id, _ in asked], "delivery_ids": [found for _, found in asked]}
    known = {(row[0], row[1]): row[2] for row in (yield Step(statement("delivered", schema), known_of))}
    had, taken = told_apart(sendable, known)
    return Sent(reached, {name: state for name, state in missed.items() if name not in had}, taken)


def _to_ask(messages: Iterable[Message], new: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the ids that were there before; one that is new here and given twice is asked for, too."""
    asked: dict[tuple[str, str], None] = {}
    first: set[tuple[str, str]] = set()
    for message in messages:
        if message.delivery_id is not None:
            named = (message.run_id, message.delivery_id)
            if named not in new or named in first:
                asked[named] = None
            first.add(named)
    return list(asked)
