"""Replaying a journal against today's code, without a worker: what a recorded run decided, it must decide again.

The rule: a history is all that a replay needs, as one value that is also a file: for tests that keep the journals
of runs in production and try every change of a workflow on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from continuum._core import commands as c
from continuum._core.entries import Entry, event_of_entry
from continuum._core.events import RunStarted
from continuum._core.jsontext import dump
from continuum._core.machine import Machine, RunContext, Turn
from continuum.descriptions import Event, RunDescription
from continuum.errors import ContinuumError, DecodeError
from continuum.runs import RunHandle
from continuum.workflow import Workflow

__all__ = ["History", "assert_replays", "load_history", "read_history", "save_history"]

FORMAT = 1
WAYS_OUT = "ways out: keep what was decided behind patched(), or make it a new version: @workflow(version=…)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class History:
    """A run as it was recorded: where it stands, its input as plain JSON, and its journal, all generations of it.

    ``result`` is plain JSON, and means something only if ``state`` is completed. The last three are what the
    workflow may have asked ``run_info()`` for.
    """

    run_id: str
    workflow: str
    version: int
    depth: int
    generation: int
    state: str
    started_at: datetime
    input: Any
    result: Any
    events: tuple[Event, ...]
    namespace: str = "default"
    attributes: Mapping[str, Any] | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, run: RunDescription, events: Sequence[Event]) -> History:
        """Return the history of a run from what ``describe()`` and ``history()`` give.

        ``run`` must have been described by a handle without its workflow, so that input and result are plain JSON.
        """
        return cls(
            run_id=run.id,
            workflow=run.workflow,
            version=run.version,
            depth=run.depth,
            generation=run.generation,
            state=run.state,
            started_at=run.started_at or run.created_at,
            input=run.input,
            result=run.result,
            events=tuple(events),
            namespace=run.namespace,
            attributes=run.attributes,
            traceparent=run.traceparent,
        )


async def read_history(run: RunHandle[Any]) -> History:
    """Return a run's history. Raises ``RunNotFound``."""
    untyped: RunHandle[Any] = RunHandle(run.id, run._journal)
    return History.of(await untyped.describe(), await untyped.history())


async def save_history(run: RunHandle[Any], path: str | Path) -> History:
    """Write a run's history to a file, as JSON that can be read and compared, and return it.

    Raises ``FileNotFoundError`` if its folder does not exist.
    """
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{Path(path).parent} is no folder: make it, then save_history() writes {path}")
    found = await read_history(run)
    plain = {"format": FORMAT, **asdict(found)}
    text = json.dumps(plain, indent=1, ensure_ascii=False, default=_plain)
    Path(path).write_text(text + "\n", encoding="utf-8")  # noqa: ASYNC240 - a small file, in a test
    return found


def load_history(path: str | Path) -> History:
    """Return the history that ``save_history`` wrote. Raises ``ValueError`` for another file."""
    try:
        plain: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if plain.pop("format") != FORMAT:
            raise ValueError("it has another format")
        events = [_event(event) for event in plain.pop("events")]
        started_at = datetime.fromisoformat(plain.pop("started_at"))
        return History(**plain, started_at=started_at, events=tuple(events))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no history that save_history() wrote: {error}") from error


def assert_replays(flow: Workflow[Any, Any], journal: History | str | Path) -> None:
    """Replay a recorded run against ``flow``; a history, or the file of one.

    Raises ``AssertionError`` with what was recorded and what the code decides now. Of a run with several
    generations those of the last one's version are replayed. Nothing outside is touched: no activity runs.
    """
    history, where = (journal, "") if isinstance(journal, History) else (load_history(journal), f" in {journal}")
    if (flow.name, flow.version) != (history.workflow, history.version):
        raise AssertionError(
            f"run {history.run_id!r}{where} is of workflow {history.workflow!r} version {history.version}, "
            f"and {flow!r} is another one"
        )
    (problem,) = differences([(flow, history)])
    if problem is not None:
        raise AssertionError(f"{flow!r} does not replay run {history.run_id!r}{where}:\n{problem}\n{WAYS_OUT}")


def differences(recorded: Sequence[tuple[Workflow[Any, Any], History]]) -> list[str | None]:
    """Return for each recorded run how the code differs, or None.

    The code runs in a thread of its own, waited for: a turn is never taken inside a task, and a test is one.
    """
    with ThreadPoolExecutor(1, "continuum-replay") as pool:
        return [pool.submit(difference, flow, history).result() for flow, history in recorded]


def difference(flow: Workflow[Any, Any], history: History) -> str | None:
    """Return how the code differs from what is recorded, in words, or None."""
    entries: dict[int, list[Entry]] = {}
    for event in history.events:
        entries.setdefault(event.generation, []).append(_entry(event))
    first = {1} if 2 in entries or history.generation == 1 else set[int]()  # of pruned ones nothing can be said
    generations = sorted({*first, history.generation, *entries})
    for generation in generations:
        try:
            found = _replayed(flow, _context(history, generation), history, entries)
        except (DecodeError, ContinuumError) as error:
            found = str(error)
        if found is not None:
            return found if len(generations) == 1 else f"generation {generation}:\n{found}"
    return None


def _context(history: History, generation: int) -> RunContext:
    attributes = None if history.attributes is None else dump(dict(history.attributes))
    where = history.run_id, generation, history.depth, 2**31
    return RunContext(*where, history.namespace, attributes, history.traceparent)


def _replayed(
    flow: Workflow[Any, Any], context: RunContext, history: History, generations: Mapping[int, list[Entry]]
) -> str | None:
    generation = context.generation
    last = generation == history.generation
    entries = generations.get(generation, [])
    if generation == 1:
        started = RunStarted(_us(history.started_at), dump(history.input))
    else:
        if not entries:
            return "its start is missing"
        started, entries = _start(entries[0]), entries[1:]
    if last and history.state == "pending" and len(entries) <= started.carried:
        return None  # it has not begun
    machine = Machine(flow, context)
    try:
        turn = machine.replay(started, entries, begun=history.state not in _LIVE)
        if turn.fault is not None:
            return str(turn.fault)
        if last:
            return _end(flow, history, turn)
        following = generations.get(generation + 1)
        return (
            "the next one's start is missing" if not following else _continuation(flow, started, turn, following)
        )
    finally:
        machine.discard()


def _start(entry: Entry) -> RunStarted:
    found = event_of_entry(entry)
    if not isinstance(found, RunStarted):
        raise DecodeError(f"journal entry {entry.type} {entry.key}", "a generation begins with run_started")
    return found


def _end(flow: Workflow[Any, Any], history: History, turn: Turn) -> str | None:
    """Return how the end of a run differs. What was cancelled from outside ended without a word of its code."""
    decided, states = _ending(turn.closing)
    if history.state not in (*states, "parked"):
        return _sides(f"the run is {history.state}", decided)
    if isinstance(turn.closing, c.CompleteRun) and history.state == "completed":
        recorded = dump(history.result)
        if not flow.result.means_the_same(recorded, turn.closing.result):
            return _sides(f"the result {recorded.decode()}", decided)
    return None


def _ending(closing: c.Closing | None) -> tuple[str, tuple[str, ...]]:
    """Return what the code decided in the end, and the states of a run that go with it."""
    match closing:
        case c.CompleteRun(result):
            return f"to complete with {result.decode()}", ("completed",)
        case c.FailRun(failure):
            return f"to fail with {failure}", ("failed",)
        case c.CancelRun():
            return "to let itself be cancelled", ("cancelled",)
        case c.ContinueRun():
            return "to continue as new", ()
        case c.RetryRun(failure=failure):
            return f"to begin anew after {failure}", ()
        case None:
            return "to go on waiting", ("cancelled", *_LIVE)


def _continuation(
    flow: Workflow[Any, Any], started: RunStarted, turn: Turn, following: Sequence[Entry]
) -> str | None:
    """Return how the end of a generation differs from the start of the next: no other entry tells of it."""
    recorded, closing = _start(following[0]), turn.closing
    if recorded.attempt > 1:
        # Whether it was to be tried again is for its parent's policy to say, which no journal has.
        if not isinstance(closing, c.FailRun):
            return _sides(f"the run failed and began anew: {recorded.failure}", _ending(closing)[0])
        decided, kind = started.input, recorded.failure and recorded.failure.type
        if kind is not None and kind != closing.failure.type:
            return _sides(f"the run failed and began anew: {recorded.failure}", _ending(closing)[0])
    elif isinstance(closing, c.ContinueRun):
        decided = closing.input
    else:
        return _sides("the run continued as new", _ending(closing)[0])
    if not flow.input.means_the_same(recorded.input, decided):
        return _sides(f"the next generation's input {recorded.input.decode()}", decided.decode())
    return None


def _sides(recorded: str, decided: str) -> str:
    return f"recorded: {recorded}\ndecided:  {decided}"


_LIVE = ("pending", "running", "suspended")


def _entry(event: Event) -> Entry:
    return Entry(event.type, event.key, _us(event.at), dump(event.payload))


def _event(plain: dict[str, Any]) -> Event:
    at = datetime.fromisoformat(plain.pop("at"))
    return Event(**plain, at=at)


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _plain(value: object) -> Any:
    return cast("datetime", value).isoformat()
