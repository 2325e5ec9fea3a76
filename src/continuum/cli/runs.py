"""``continuum runs``: look at runs, their journals and their trees.

The rule: nothing here changes anything. Plain output is for people, cut to the terminal's width and escaped;
``--json`` has everything.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from continuum.cli.options import Commands, add_verb, seconds, whole, with_client
from continuum.cli.output import say
from continuum.cli.text import as_json, columns, fitted, moment, printable, some, terminal_width

if TYPE_CHECKING:
    from continuum.client import Client
    from continuum.descriptions import Event, RunDescription
    from continuum.errors import Failure

PAGE = 500
WIDE = 110  # a terminal that has room for when a run was created
LEAST = 24  # columns in which a remark says something


def add(commands: Commands) -> None:
    """Add ``runs`` and its verbs."""
    parser = commands.add_parser("runs", help="look at runs", description="Look at runs. Times are in UTC.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    listing = add_verb(
        verbs, "list", _list, "list root runs, newest first", example="continuum runs list --state failed"
    )
    listing.add_argument("--workflow", help="of this workflow only")
    listing.add_argument("--state", help="pending, running, suspended, completed, failed, cancelled or parked")
    listing.add_argument("--namespace", help="of this namespace only")
    many = listing.add_mutually_exclusive_group()
    many.add_argument("--limit", type=whole(1), default=50, metavar="N", help="how many (50)")
    many.add_argument("--all", action="store_true", help="all of them")
    _json(listing, "print one JSON document a line, without inputs and results")

    show = add_verb(verbs, "show", _show, "show one run", example="continuum runs show order-o1")
    show.add_argument("run_id", metavar="RUN")
    _json(show, "print one JSON document")

    history = add_verb(
        verbs, "history", _history, "show a run's journal", example="continuum runs history order-o1"
    )
    history.add_argument("run_id", metavar="RUN")
    history.add_argument("--generation", type=whole(1), metavar="N", help="of this one only; they count from 1")
    _json(history, "print one JSON document a line")

    from continuum.cli import tree

    below = add_verb(
        verbs,
        "tree",
        tree.run,
        "show a run and the runs below it",
        about=f"Of more than {tree.MOST_SHOWN} children of one run some are shown, what failed first.",
        example="continuum runs tree batch-7 --depth 1",
    )
    below.add_argument("run_id", metavar="RUN")
    below.add_argument("--depth", type=whole(1), metavar="N", help="so many levels below it; else all")
    below.add_argument("--limit", type=whole(1), default=10_000, metavar="N", help="read so many runs (10000)")
    how = below.add_mutually_exclusive_group()
    how.add_argument(
        "--watch",
        type=seconds,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="draw it again every 2 seconds, or so many, until the run has ended",
    )
    _json(how, "print one JSON document: each run with its children, all of them")


def _json(parser: argparse._ActionsContainer, says: str) -> None:
    parser.add_argument("--json", action="store_true", help=says)


def _list(arguments: argparse.Namespace) -> int:
    async def show(client: Client) -> int:
        shown: list[RunDescription] = []
        count, there_are_more = 0, False
        async for run in _found(client, arguments):
            there_are_more = not arguments.all and count == arguments.limit
            if there_are_more:
                break
            count += 1
            if arguments.json:
                say(as_json(plain(run, values=False)))
            else:
                shown.append(run)
        if count == 0 and arguments.workflow is not None:
            await _expect_workflow(client, arguments.workflow)
        if not arguments.json:
            _print_table(shown)
            if there_are_more:
                say(f"there are more: --all, or --limit above {arguments.limit}")
        return 0

    return with_client(arguments, show)


async def _found(client: Client, arguments: argparse.Namespace) -> AsyncIterator[RunDescription]:
    """Yield the runs that were asked for, page after page."""
    chosen = {name: getattr(arguments, name) for name in ("workflow", "state", "namespace")}
    size = PAGE if arguments.all else min(PAGE, arguments.limit + 1)  # one more tells whether there are more
    page = await client.list_runs(**chosen, limit=size)
    while page:
        for run in page:
            yield run
        page = await client.list_runs(**chosen, limit=size, before=page[-1]) if len(page) == size else []


async def _expect_workflow(client: Client, name: str) -> None:
    """Raise ``UnknownWorkflow`` for a name that nobody announced: it may be mistyped."""
    import difflib

    from continuum.errors import UnknownWorkflow

    known = sorted({found.name for found in await client.definitions() if found.kind == "workflow"})
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
        raise UnknownWorkflow(name, hint)


def _print_table(found: Sequence[RunDescription]) -> None:
    if not found:
        say("no runs")
        return
    width = terminal_width()
    heads = ["RUN", "WORKFLOW", "STATE", "TOOK", ""]
    rows = [[run.id, run.workflow, run.state, took(run), remark(run)] for run in found]
    if width is None or width >= WIDE:
        created = ("CREATED", *(moment(run.created_at) for run in found))
        for cells, cell in zip((heads, *rows), created, strict=True):
            cells.insert(3, cell)
    for line in columns(heads, rows, width, least=LEAST):
        say(line)


def took(run: RunDescription) -> str:
    """Return how long a run lasted, or has lasted so far."""
    from datetime import UTC, datetime

    from continuum.cli.text import lasting

    return lasting((run.completed_at or datetime.now(UTC)) - run.created_at)


def remark(run: RunDescription) -> str:
    """Return what else is to be said of a run: why it ended so, or what it waits for."""
    if run.error is not None and run.state != "parked":
        return run.error.brief()
    said = [f"asked to stop, {time_left(run)}: {run.stop_reason}"] if run.stop_by is not None else []
    if run.waiting_for:
        said.append(f"{waits(run)} {run.waiting_for}")
    return "; ".join(said)


def waits(run: RunDescription) -> str:
    """Return the words before what a run waits for: of one in memory only what it waited for before is known."""
    return "last waited for" if run.state == "running" else "waiting for"


def time_left(run: RunDescription) -> str:
    """Return how long a run that was asked to stop may still take for it."""
    from datetime import UTC, datetime, timedelta

    from continuum.cli.text import lasting

    assert run.stop_by is not None
    left = run.stop_by - datetime.now(UTC)
    return f"{lasting(left)} left" if left > timedelta() else "its time is over"


def plain(run: RunDescription, *, values: bool = True) -> dict[str, Any]:
    """Return a run as JSON has it, without input and result unless ``values``."""
    from dataclasses import fields

    told = {field.name: getattr(run, field.name) for field in fields(run)}
    told["error"] = None if run.error is None else plain_failure(run.error)
    if not values:
        del told["input"], told["result"], told["published"]
    return told


def plain_failure(failure: Failure) -> dict[str, Any]:
    """Return a failure as JSON has it."""
    import json

    from continuum._core.failure import encode_failure

    told: dict[str, Any] = json.loads(encode_failure(failure))
    return told


def _show(arguments: argparse.Namespace) -> int:
    async def show(client: Client) -> int:
        run = await client.get_run(arguments.run_id).describe()
        if arguments.json:
            say(as_json(plain(run), indent=2))
            return 0
        for name, value in _rows(run):
            say(f"{name + ':':13}{' ' if len(name) > 12 else ''}{value}".rstrip())
        if run.error is not None:
            say("error:")
            for line in (*_chain(run.error, "  "), *_tracebacks(run.error)):
                say(line)
        return 0

    return with_client(arguments, show)


def _rows(run: RunDescription) -> Iterator[tuple[str, str]]:
    yield "run", printable(run.id)
    yield "workflow", f"{printable(run.workflow)} version {run.version}"
    yield "state", run.state
    if run.stop_by is not None:
        yield "to stop by", f"{moment(run.stop_by)} ({time_left(run)}): {printable(run.stop_reason or '')}"
    waiting = {"worker": run.worker_id, waits(run): run.waiting_for, "parent": run.parent_run_id}
    for name, value in waiting.items():
        if value is not None:
            yield name, printable(value)
    if run.generation > 1:
        yield "generation", str(run.generation)
    if run.namespace != "default":
        yield "namespace", printable(run.namespace)
    if run.attributes:
        yield "attributes", some(as_json(run.attributes))
    if run.traceparent is not None:
        yield "trace", printable(run.traceparent)
    for name, at in (("created", run.created_at), ("started", run.started_at), ("ended", run.completed_at)):
        if at is not None:
            yield name, moment(at)
    yield "took", took(run)
    yield "input", some(as_json(run.input))
    if run.state == "completed":
        yield "result", some(as_json(run.result))
    if run.published is not None:
        yield "published", some(as_json(run.published))


def _chain(failure: Failure, indent: str) -> Iterator[str]:
    """Yield what went wrong, the members of a group, and then what caused it."""
    for number, one in enumerate(failure.chain()):
        head, *more = str(one).splitlines() or [""]
        yield f"{indent}{'caused by ' if number else ''}{printable(head)}"
        for line in more:
            yield f"{indent}  {printable(line)}"
        for part in one.parts:
            yield f"{indent}  member of the group:"
            yield from _chain(part, indent + "    ")


def _tracebacks(failure: Failure) -> Iterator[str]:
    """Yield where in the author's code each one of a chain happened, and members of groups; JSON has it all."""
    from continuum._core.failure import own_frames

    for one in failure.chain():
        if frames := own_frames(one.traceback):
            head = fitted(printable(" ".join(str(one).split())), WIDE)
            yield f"traceback of {head}"
            yield from map(printable, frames.splitlines())
        for part in one.parts:
            yield from _tracebacks(part)


def _history(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    async def show(client: Client) -> int:
        events = await client.get_run(arguments.run_id).history(arguments.generation)
        if arguments.json:
            for event in events:
                say(as_json(asdict(event)))
        elif not events:
            say(f"no entries{await _why_none(client, arguments)}")
        else:
            for line in columns(
                ("GEN", "SEQ", "AT", "TYPE", "KEY", "PAYLOAD"), map(_row, events), terminal_width()
            ):
                say(line)
        return 0

    return with_client(arguments, show)


async def _why_none(client: Client, arguments: argparse.Namespace) -> str:
    """Return what else is to be said of a generation without entries, which is not the one that the run is in."""
    newest = (await client.get_run(arguments.run_id).describe()).generation
    asked = arguments.generation or newest
    if asked < newest:
        return f": those of generation {asked} were deleted, or there were none"
    return f": the run has come to generation {newest}" if asked > newest else ""


def _row(event: Event) -> tuple[str, ...]:
    payload = some(as_json(event.payload))
    return (str(event.generation), str(event.seq), moment(event.at), event.type, event.key, payload)
