"""Asking a run for an update: what is sent, and what its answer means.

The rule: whoever asks again under the same id asks about the same update, whatever became of the run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from continuum._core.codec import Codec
from continuum._core.effects import Message
from continuum._core.entries import entry_of_event
from continuum._core.events import UpdateRequested
from continuum._core.failure import decode_failure, remote
from continuum._core.jsontext import dump
from continuum._journal.commit import End
from continuum._journal.protocol import Journal
from continuum.errors import (
    DatabaseUnreachable,
    Failure,
    RunNotActive,
    RunNotFound,
    UpdateFailed,
    UpdateRefused,
)
from continuum.updates import Update
from continuum.workflow import Workflow

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
_RESULT = b'{"result":'


@dataclass(frozen=True, slots=True)
class AskedUpdate:
    """An update of a run, as it is asked for under ``id``."""

    run_id: str
    id: str
    name: str
    given: bytes
    result: Codec[Any]

    async def answer(self, journal: Journal) -> Any:
        """Send the update unless it was, wait for its answer, and return or raise it."""
        entry = entry_of_event(UpdateRequested(0, self.name, self.given, self.id))
        message = Message(self.run_id, entry.type, entry.key, entry.payload, self.id)
        try:
            missed = await journal.send([message])
        except DatabaseUnreachable as error:
            error.add_note(f"update {self.id!r} may have been sent; asking again under this id is safe")
            raise
        for run_id, state in missed.items():
            raise RunNotFound(run_id) if state is None else RunNotActive(run_id, state)
        told = await journal.wait_answer(self.run_id, self.id)
        if isinstance(told, bytes):
            return self._read(told)
        raise self._unanswered(told)

    def _read(self, answer: bytes) -> Any:
        if answer.startswith(_RESULT):
            return self.result.decode(answer[len(_RESULT) : -1])
        fields: dict[str, Any] = json.loads(answer)
        if "result" in fields:  # written anew by a dump and a restore
            return self.result.decode(dump(fields["result"]))
        refused = "refused" in fields
        failure = decode_failure(dump(fields["refused" if refused else "error"]))
        error = (UpdateRefused if refused else UpdateFailed)(self.run_id, self.name, failure)
        error.__cause__ = remote(failure)
        raise error

    def _unanswered(self, end: End) -> UpdateFailed:
        failure = Failure("RunEnded", f"the run was {end.state} before it answered")
        if end.state == "completed":
            failure = Failure("RunEnded", "the run completed before it answered")
        return UpdateFailed(self.run_id, self.name, failure)


def declared(flow: Workflow[Any, Any] | None, update: Update[I, R] | str) -> Update[I, R] | Update[Any, Any]:
    """Return the update that is meant, plain if only its name is known.

    Raises ``UnknownMessage`` if the workflow is known and does not declare it.
    """
    if isinstance(update, Update):
        if flow is not None:
            flow.update(update.name)
        return update
    if not isinstance(update, str):
        raise TypeError(f"an update is an Update or its name: got {update!r}")
    return Update(update) if flow is None else flow.update(update)
