"""What the commands that talk to a database share: options, and how their errors end.

The rule: an option is a connection's keyword, and without it the connection looks where every program looks.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from continuum.cli.output import complain, show_log

if TYPE_CHECKING:
    from continuum.client import Client
    from continuum.errors import RunNotFound

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # generic to type checkers alone
Verb = Callable[[argparse.Namespace], int]
MOST_SECONDS = 100 * 366 * 86_400.0
LOOKED_THROUGH = 1_000  # runs among which the one that was meant is looked for


def add_verb(
    commands: Commands, name: str, run: Verb, says: str, *, about: str = "", example: str = ""
) -> argparse.ArgumentParser:
    """Add a command that uses the database; ``about`` and ``example`` are for its help alone."""
    parser = commands.add_parser(
        name,
        help=says,
        description=f"{says[0].upper()}{says[1:]}. {about}".strip(),
        epilog=f"example: {example}" if example else None,
    )
    database = parser.add_argument_group("the database")
    database.add_argument("--url", type=given, help="else CONTINUUM_DATABASE_URL, else the embedded server")
    database.add_argument("--schema", type=given, help="else CONTINUUM_SCHEMA, else continuum")
    database.add_argument(
        "--home", type=given, help="folder of the embedded server; else CONTINUUM_HOME, else ./.continuum"
    )
    parser.set_defaults(run=partial(_told, run), parser=parser)
    return parser


def given(text: str) -> str:
    """Refuse an empty value: it is a variable that was not set, and must not mean the default."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def whole(least: int) -> Callable[[str], int]:
    """Return a type of argument: whole numbers of at least ``least``."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"it is a whole number of at least {least}, not {text!r}")
        return number

    return read


def seconds(text: str) -> float:
    """Read an argument that is a number of seconds, from 0 to a hundred years: what a database can still add."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= MOST_SECONDS:
        most = " of at most a hundred years" if MOST_SECONDS < number < float("inf") else ""
        raise argparse.ArgumentTypeError(f"it is a number of seconds{most}, not {text!r}")
    return number


def database(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of ``connect`` that say which database is meant."""
    return {"url": arguments.url, "schema": arguments.schema, "home": arguments.home}


def with_client(arguments: argparse.Namespace, work: Callable[[Client], Awaitable[int]]) -> int:
    """Return the exit code of ``work``, which gets a client. Nothing is created: no schema, no embedded server."""
    import asyncio

    from continuum.client import connect
    from continuum.errors import RunNotFound

    _expect_database(arguments)

    async def connected() -> int:
        async with connect(**database(arguments), migrate=False) as client:
            try:
                return await work(client)
            except RunNotFound as error:
                raise await _with_nearest(client, error) from None

    return asyncio.run(connected())


def _expect_database(arguments: argparse.Namespace) -> None:
    """Raise ``DatabaseUnreachable`` if the embedded server is meant and there is none: none is made now."""
    if arguments.url is not None or (arguments.home is None and os.environ.get("CONTINUUM_DATABASE_URL")):
        return
    from continuum.embedded import Server
    from continuum.errors import DatabaseUnreachable

    home = Server(arguments.home).home
    if not home.is_dir():
        raise DatabaseUnreachable(
            f"there is no embedded Postgres in {home}: `continuum worker` makes one; another database is named by "
            "--url or CONTINUUM_DATABASE_URL"
        )


async def _with_nearest(client: Client, error: RunNotFound) -> RunNotFound:
    """Return ``error`` with the id of the run that may have been meant."""
    from continuum.errors import RunNotFound

    parent, _, _ = error.run_id.rpartition("/")
    try:
        known = await (client.list_children(parent) if parent else client.list_runs(limit=LOOKED_THROUGH))
    except RunNotFound as above:
        return await _with_nearest(client, above)
    near = difflib.get_close_matches(error.run_id, [run.id for run in known], n=1)
    if near:
        error.args = (f"{error}; did you mean {near[0]!r}?",)
    return error


def _told(run: Verb, arguments: argparse.Namespace) -> int:
    from continuum.errors import EncodeError, InvalidId, InvalidSetting, UnknownMessage, UnknownWorkflow

    if not hasattr(arguments, "log_level"):  # who has that option shows more than warnings, and does so itself
        show_log()
    try:
        return run(arguments)
    except BrokenPipeError:  # who read our output has had enough: no error
        raise
    except Exception as error:
        error = only(error)
        if arguments.debug:
            raise
        # How it was called, or set up, is wrong.
        of_caller = isinstance(error, (InvalidSetting, InvalidId, EncodeError, UnknownMessage, UnknownWorkflow))
        if of_caller or is_of_embedded(error):
            return complain(error, exit_code=2)
        return complain(error)


def only(error: Exception) -> Exception:
    """Return what went wrong, out of the groups that task groups made of it."""
    if isinstance(error, ExceptionGroup):
        return only(cast("ExceptionGroup[Exception]", error).exceptions[0])
    return error


def is_of_embedded(error: Exception) -> bool:
    """Tell whether the embedded server cannot be used, without importing it for the question."""
    return any(kind.__name__ == "EmbeddedError" for kind in type(error).__mro__)
