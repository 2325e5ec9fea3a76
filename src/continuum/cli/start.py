"""``continuum start``, ``signal``, ``cancel`` and ``resume``: what is done to runs from a shell.

The rule: JSON is read before the database is asked for anything, so what is no JSON changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from continuum.cli.options import Commands, add_verb, seconds, with_client
from continuum.cli.output import complain, note, say
from continuum.cli.text import as_json, printable

if TYPE_CHECKING:
    from continuum._core.codec import Codec
    from continuum.client import Client
    from continuum.definitions import Definitions
    from continuum.runs import RunHandle
    from continuum.workflow import Workflow

ABOUT = """It prints the run's id; with --wait its result instead, as JSON, and ends with 1 if the run failed, was
cancelled or has not ended in time. The same workflow with the same input under the same --id is the run that is
there already."""

UPDATE = """Its answer is printed as JSON; before that, on stderr, the id that was made for it if none was given.
It ends with 1 if the update was refused, failed or is not answered in time; then the update stays, and its answer
can be asked for under the same --id."""


def add(commands: Commands) -> None:
    """Add the verbs."""
    start = add_verb(
        commands,
        "start",
        _start,
        "start a run of a workflow",
        about=ABOUT,
        example='continuum start order_flow \'{"id": "o1", "cents": 4200}\' --id order-o1 --wait=30',
    )
    start.add_argument("workflow", metavar="WORKFLOW", help="its name, as a worker announced it")
    start.add_argument("input", metavar="INPUT", nargs="?", help="its input as JSON, or - for stdin; else null")
    start.add_argument("--input", metavar="FILE", dest="file", help="read the input from a file")
    start.add_argument("--id", help="the run's id; else one is made")
    start.add_argument(
        "--wait", nargs="?", type=seconds, const=float("inf"), metavar="SECONDS", help="wait until it has ended"
    )
    start.add_argument(
        "--json", action="store_true", help="print one JSON document: id, and the outcome with --wait"
    )
    start.set_defaults(late="input")

    signal = add_verb(
        commands, "signal", _signal, "send a run a signal", example="continuum signal order-o1 approve true"
    )
    signal.add_argument("run_id", metavar="RUN")
    signal.add_argument("name", metavar="NAME", help="the signal's name")
    signal.add_argument("payload", metavar="PAYLOAD", nargs="?", help="JSON, or - for stdin; else null")
    signal.add_argument("--delivery-id", metavar="ID", help="the run gets the first signal sent under it alone")
    signal.add_argument(
        "--module", action="append", default=[], metavar="MODULE", help="check against the workflow defined there"
    )
    signal.set_defaults(late="payload")

    _add_update(commands)

    cancel = add_verb(
        commands, "cancel", _cancel, "cancel a run and every run below it", example="continuum cancel order-o1"
    )
    cancel.add_argument("run_id", metavar="RUN")
    cancel.add_argument("--reason", default="cancelled by request", help="recorded as why")
    says = "ask it to stop, and cancel it when this has passed; its clean-up may wait for activities and children"
    cancel.add_argument("--grace", type=seconds, metavar="SECONDS", help=says)

    says = "let a parked run go on, after what parked it was mended"
    resume = add_verb(commands, "resume", _resume, says, example="continuum resume order-o1")
    resume.add_argument("run_id", metavar="RUN")


def _add_update(commands: Commands) -> None:
    update = add_verb(
        commands,
        "update",
        _update,
        "ask a run for an update and print its answer",
        about=UPDATE,
        example='continuum update order-o1 set_address \'{"street": "Lindenweg"}\' --timeout 10',
    )
    update.add_argument("run_id", metavar="RUN")
    update.add_argument("name", metavar="NAME", help="the update's name")
    update.add_argument("payload", metavar="INPUT", nargs="?", help="its input as JSON, or - for stdin; else null")
    update.add_argument("--id", help="names the update: asked again under it, it is the same one")
    update.add_argument("--timeout", type=seconds, metavar="SECONDS", help="wait no longer for the answer")
    update.add_argument(
        "--module", action="append", default=[], metavar="MODULE", help="check against the workflow defined there"
    )
    update.set_defaults(late="payload")


def _start(arguments: argparse.Namespace) -> int:
    given = _input(arguments)
    started: list[str] = []

    async def start(client: Client) -> int:
        run = await client.start(arguments.workflow, given, id=arguments.id)
        started.append(run.id)
        if arguments.wait is not None:
            return await _outcome(run, arguments)
        say(as_json({"id": run.id}) if arguments.json else printable(run.id))
        return 0

    try:
        return with_client(arguments, start)
    except KeyboardInterrupt:
        if not started:
            raise
        return complain(_told(f"interrupted; run {started[0]!r} goes on"), exit_code=130)


async def _outcome(run: RunHandle[Any], arguments: argparse.Namespace) -> int:
    """Wait for a run, print its result, and return the exit code."""
    from continuum._core.failure import encode_failure
    from continuum.errors import RunCancelled, RunFailed

    told: dict[str, Any] = {"id": run.id}
    try:
        result = await run.result(None if arguments.wait == float("inf") else arguments.wait)
        told |= {"state": "completed", "result": result}
    except RunFailed as error:
        trouble: Exception = error
        told |= {"state": "failed", "error": json.loads(encode_failure(error.failure))}
    except RunCancelled as error:
        trouble = error
        told |= {"state": "cancelled", "error": {"type": "Cancelled", "message": error.reason}}
    except TimeoutError as error:
        return complain(_told(str(error)))
    else:
        say(as_json(told if arguments.json else result))
        return 0
    if arguments.json:
        say(as_json(told))
    return complain(trouble)


def _signal(arguments: argparse.Namespace) -> int:
    payload = _read("the payload", arguments.payload)
    definitions = _definitions(arguments)

    async def send(client: Client) -> int:
        run: RunHandle[Any] = client.get_run(arguments.run_id)
        value = payload
        if definitions is not None:
            run, flow = await _known(client, run, definitions)
            value = as_typed(flow.signal_codec(arguments.name), payload)
        await run.signal(arguments.name, value, delivery_id=arguments.delivery_id)
        say(f"sent {printable(arguments.name)} to {printable(arguments.run_id)}")
        return 0

    return with_client(arguments, send)


def _update(arguments: argparse.Namespace) -> int:
    given = _read("the input", arguments.payload)
    definitions = _definitions(arguments)
    update_id = arguments.id
    if update_id is None:  # told before it is waited for: whoever stops waiting needs it
        update_id = str(uuid.uuid4())
        note(f"update --id {update_id}")

    async def ask(client: Client) -> int:
        run = client.get_run(arguments.run_id)
        if definitions is not None:
            _, flow = await _known(client, run, definitions)
            as_typed(flow.update(arguments.name).input, given)
        try:
            answer = await run.update(arguments.name, given, id=update_id, timeout=arguments.timeout)
        except TimeoutError as error:
            return complain(_told(str(error)))
        say(as_json(answer))
        return 0

    return with_client(arguments, ask)


def _definitions(arguments: argparse.Namespace) -> Definitions | None:
    """Return the definitions in the modules that the command line names, if it names any."""
    if not arguments.module:
        return None
    from continuum.cli.modules import load
    from continuum.definitions import Definitions

    return Definitions(load(arguments.module))


async def _known(
    client: Client, run: RunHandle[Any], definitions: Definitions
) -> tuple[RunHandle[Any], Workflow[Any, Any]]:
    """Return a handle on the run that knows its workflow, and the workflow."""
    found = await run.describe()
    try:
        flow = definitions.workflow(found.workflow, found.version)
    except LookupError as error:
        raise _wrong(f"run {run.id!r} cannot be checked: {error}") from None
    return client.get_run(run.id, flow), flow


def as_typed(codec: Codec[Any], plain: Any) -> Any:
    """Return plain JSON as the value that ``codec`` is for. Raises ``EncodeError`` if it does not fit."""
    from continuum.errors import DecodeError, EncodeError

    try:
        return codec.decode(json.dumps(plain).encode())
    except DecodeError as error:
        raise EncodeError(error.what, error.problem, error.field) from None


def _cancel(arguments: argparse.Namespace) -> int:
    async def cancel(client: Client) -> int:
        await client.cancel(arguments.run_id, arguments.reason, grace=arguments.grace)
        if arguments.grace:
            say(f"asked {printable(arguments.run_id)} to stop within {arguments.grace:g} s")
        else:
            say(f"cancelled {printable(arguments.run_id)}, and every run below it")
        return 0

    return with_client(arguments, cancel)


def _resume(arguments: argparse.Namespace) -> int:
    async def resume(client: Client) -> int:
        await client.get_run(arguments.run_id).resume()
        say(f"{printable(arguments.run_id)} goes on as soon as a worker takes it up")
        return 0

    return with_client(arguments, resume)


def _input(arguments: argparse.Namespace) -> Any:
    if arguments.file is None:
        return _read("the input", arguments.input)
    if arguments.input is not None:
        raise _wrong(f"the input is given twice: as {arguments.input!r} and as --input")
    if arguments.file == "-":
        return _read("the input", "-")
    try:
        return _parsed(f"the input in {arguments.file}", Path(arguments.file).read_bytes())
    except OSError as error:
        raise _wrong(f"the input cannot be read: {error}") from None


def _read(what: str, text: str | None) -> Any:
    """Return the JSON that a command line gave, or stdin."""
    if text is None:
        return None
    if text == "-":
        return _parsed(f"{what} on stdin", sys.stdin.buffer.read())
    return _parsed(what, text.encode("utf-8", "surrogateescape"))


def _parsed(what: str, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        seen = error.doc[error.pos : error.pos + 20]
        at = f", at {seen!r}" if seen else ", at its end"
        raise _wrong(f"{what} is no JSON: {error.msg}: {where}{at}") from None
    except UnicodeDecodeError as error:
        raise _wrong(f"{what} is no UTF-8: byte {error.start + 1} of it") from None
    except RecursionError:
        raise _wrong(f"{what} is nested too deep to read") from None


def _refuse_constant(name: str) -> Never:
    raise _wrong(f"{name} is no JSON")


def _wrong(text: str) -> Exception:
    from continuum.errors import InvalidSetting

    return InvalidSetting(text)


def _told(text: str) -> Exception:
    from continuum.errors import ContinuumError

    return ContinuumError(text)
