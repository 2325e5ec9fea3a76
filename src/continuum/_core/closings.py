"""How a generation ends: what its main task came to, as a closing.

The rule: it is decided by the task and by what the run has heard, and by nothing else: no entry records a closing,
so a replay has to come to the same one by itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast
from zlib import crc32

from continuum._core import commands as c
from continuum._core.failure import capture
from continuum._core.retry import is_retryable_run, next_delay
from continuum.errors import DefinitionError, EncodeError, Failure

if TYPE_CHECKING:
    from continuum._core.machine import Machine
    from continuum._core.tasks import WorkflowTask

_BY_ITSELF = Failure("CancelledError", "the workflow's main task was cancelled by the workflow itself")


class ContinueAsNew(BaseException):
    """Leaves the main task of a workflow that continues with ``input`` as its next generation."""

    def __init__(self, given: bytes) -> None:
        self.input = given


def closing_of(machine: Machine, main: WorkflowTask | None) -> c.Closing:
    """Return what the end of the main task, or an exit outside of it, is for the run."""
    if machine.loop.exit is not None:
        return _failed(machine, machine.loop.exit)
    assert main is not None
    if main.cancelled():
        return c.CancelRun(machine.cancelled) if machine.cancelled is not None else _failed(machine, None)
    error = main.exception()
    if error is not None and (given := _continuation(error)) is not None:
        if (
            machine.cancelled is not None
        ):  # going on as another generation is no clean-up: it lets the request through
            return c.CancelRun(machine.cancelled)
        machine.updates.close()
        family = machine.children
        return c.ContinueRun(given, machine.signals.unread(), family.deadlines(), family.closes)
    if error is not None:
        return _failed(machine, error)
    try:
        result = machine.program.result.encode(main.result())
        if machine.family is None:
            return c.CompleteRun(result)
        return c.CompleteRun(result, machine.family.closes, machine.family.outliving())
    except (EncodeError, DefinitionError) as refused:
        return _failed(machine, refused)


def _failed(machine: Machine, error: BaseException | None) -> c.FailRun | c.RetryRun:
    """Return the failure of this attempt, as the end of the run or of its generation."""
    failure = _BY_ITSELF if error is None else capture(error)
    bases = () if error is None else tuple(kind.__name__ for kind in type(error).__mro__)
    retry, started, family = machine.context.retry, machine.started, machine.children
    if retry is not None and started is not None and machine.cancelled is None:
        delay = next_delay(retry, started.attempt, _fraction(machine))
        if delay is not None and is_retryable_run(retry, failure, bases):
            machine.updates.close()
            delay_us = delay // timedelta(microseconds=1)
            return c.RetryRun(
                started.input,
                failure,
                started.attempt + 1,
                machine.decisions.at_us + delay_us,
                delay_us,
                machine.signals.unread(),
                family.deadlines(),
                family.closes,
            )
    return c.FailRun(failure, family.closes, family.outliving())


def _fraction(machine: Machine) -> float:
    """Return where in the jitter's span the wait falls: the same in every replay, another for each run."""
    drawn = f"{machine.context.run_id}#{machine.context.generation}"
    return crc32(drawn.encode("utf-8", "surrogatepass")) / 2**32


def _continuation(error: BaseException | None) -> bytes | None:
    """Return the next generation's input if ``error`` is only that; a task group wraps what leaves it."""
    while isinstance(error, BaseExceptionGroup):
        parts = cast("tuple[BaseException, ...]", error.exceptions)
        error = parts[0] if len(parts) == 1 else None
    return error.input if isinstance(error, ContinueAsNew) else None
