"""What a start asks for: checked, and with everything chosen that the caller left open.

The rule: the same request may be made again. So a run that is there under its id is what was asked for, if it is
of the same workflow and its input means the same.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from continuum._core.codec import Codec
from continuum._journal.commit import NewRoot
from continuum.errors import DefinitionError, InvalidSetting, RunAlreadyExists
from continuum.policies import expect
from continuum.runs import RunHandle
from continuum.workflow import Workflow

if TYPE_CHECKING:
    from continuum._journal.protocol import Journal

__all__ = ["Asked", "checked_attributes", "checked_priority", "definition_of", "expect_flow", "new_run_id"]

MOST_PRIORITY = 1000
_ATTRIBUTES: Codec[dict[str, Any]] = Codec(dict[str, Any], "attributes of a run")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a start asks for."""

    root: NewRoot
    known: Workflow[Any, Any] | None
    codec: Codec[Any]

    def handle(self, journal: Callable[[], Journal], there: tuple[str, bytes] | None) -> RunHandle[Any]:
        """Return a handle. Raises ``RunAlreadyExists`` if another workflow or input is ``there`` under the id."""
        run_id, workflow = self.root.run_id, self.root.workflow
        if there is not None and there[0] != workflow:
            raise RunAlreadyExists(run_id, there[0], f"of workflow {there[0]!r} and not {workflow!r}")
        if there is not None and not self.codec.means_the_same(there[1], self.root.input):
            raise RunAlreadyExists(run_id, workflow, f"of workflow {workflow!r} with another input")
        return RunHandle(run_id, journal, self.known)


def new_run_id() -> str:
    """Return a new UUIDv7: made of the time and of chance, so that ids made later sort behind."""
    stamp = (time.time_ns() // 1_000_000) << 80
    number = stamp | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | (7 << 76)
    return str(uuid.UUID(int=number & ~(0b11 << 62) | (0b10 << 62)))


def definition_of(flow: Any) -> tuple[Workflow[Any, Any] | None, str, int | None]:
    """Return a workflow's definition, name and version; of a name, that name."""
    if isinstance(flow, str):
        return None, flow, None
    known = expect_flow("start", flow)
    return known, known.name, known.version


def expect_flow(function: str, flow: Any) -> Workflow[Any, Any]:
    """Return ``flow`` if it is a workflow's definition. Raises ``DefinitionError``."""
    if isinstance(flow, Workflow):
        return cast("Workflow[Any, Any]", flow)
    raise DefinitionError(f"{function}() takes a workflow's definition: got {flow!r}; decorate it with @workflow")


def checked_priority(priority: object) -> int:
    """Return ``priority`` if it is one. Raises ``InvalidSetting``."""
    expect("priority", priority, int, "a whole number")
    if not 0 <= cast("int", priority) <= MOST_PRIORITY:
        raise InvalidSetting(f"priority is a whole number from 0 to {MOST_PRIORITY}: got {priority}")
    return cast("int", priority)


def checked_attributes(attributes: Mapping[str, Any] | None) -> bytes | None:
    """Return attributes as JSON. Raises ``TypeError``, and ``EncodeError`` for what is no plain JSON."""
    if attributes is None:
        return None
    expect("attributes", attributes, Mapping, "a mapping of names to plain JSON")
    return _ATTRIBUTES.encode(dict(attributes))
