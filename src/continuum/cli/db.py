"""``continuum db``: the embedded server, and the schema of whichever database is used.

The rule: ``start``, ``stop``, ``status`` and ``url`` are about the embedded server alone; ``migrate`` and
``prune`` use the database that programs would use.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from continuum.cli.output import complain, say, show_log

if TYPE_CHECKING:
    from continuum.embedded import Server, Status

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # generic to type checkers alone
Verb = Callable[[argparse.Namespace], int]


ABOUT = """start, stop, status and url are about the embedded server in its home folder; migrate and prune are
about the database that programs use: --url, else CONTINUUM_DATABASE_URL, else the embedded server."""


def add(commands: Commands) -> None:
    """Add ``db`` and its verbs."""
    parser = commands.add_parser("db", help="the embedded Postgres, and the schema", description=ABOUT)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    start = _verb(verbs, "start", _start, "start the embedded server and keep it running until `db stop`")
    start.add_argument("--port", type=int, help="listen on 127.0.0.1 too, on this port, with a password")
    start.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help="a setting of Postgres"
    )
    _verb(verbs, "stop", _stop, "stop it, even with clients connected")
    _verb(verbs, "status", _status, "say how it is; exit code 0 if it runs, 1 if not")
    url = _verb(verbs, "url", _url, "print its URL, and nothing else")
    url.add_argument("--tcp", action="store_true", help="the URL for 127.0.0.1, with the password in it")

    migrate = _verb(verbs, "migrate", _migrate, "bring the schema up to date")
    migrate.add_argument(
        "--url", type=_given, help="the database; else CONTINUUM_DATABASE_URL, else the embedded server"
    )
    roles = _verb(verbs, "roles", _roles, "print SQL that makes the roles for production", home=False)
    from continuum.cli import prune

    prune.add(verbs)
    for parser in (migrate, roles):
        parser.add_argument("--schema", type=_given, help="else CONTINUUM_SCHEMA, else continuum")


def _verb(verbs: Commands, name: str, run: Verb, says: str, *, home: bool = True) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
    if home:
        says = "folder of the embedded server; else CONTINUUM_HOME, else ./.continuum"
        parser.add_argument("--home", type=_given, help=says)
    parser.set_defaults(run=partial(_told, run), parser=parser)
    return parser


def _given(text: str) -> str:
    """Refuse an empty value: it is a variable that was not set, and must not mean the default."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _told(run: Verb, arguments: argparse.Namespace) -> int:
    from continuum.embedded import EmbeddedError
    from continuum.errors import InvalidSetting

    show_log()
    try:
        return run(arguments)
    # The configuration's fault: no binaries, a taken port, an unknown setting …
    except (EmbeddedError, InvalidSetting) as error:
        return complain(error, exit_code=2)


def _start(arguments: argparse.Namespace) -> int:
    from continuum.embedded import EmbeddedError, Server
    from continuum.embedded.trouble import runs_otherwise

    settings: dict[str, str] = {}
    for given in arguments.settings:
        name, equals, value = given.partition("=")
        if not equals:
            raise EmbeddedError(f"--set {given} is not NAME=VALUE")
        settings[name.strip()] = value.strip()
    server = Server(arguments.home, settings, port=arguments.port)
    before = server.status()
    if before.running and (others := server.differences()):
        return complain(EmbeddedError(runs_otherwise(server.home, others)), exit_code=1)
    server.start()
    after = server.status()
    if not (after.running and after.kept):
        stopped = f"the embedded Postgres in {server.home} was started, and stopped by another command meanwhile"
        return complain(EmbeddedError(f"{stopped}: `continuum db start` starts it again"), exit_code=1)
    _print_status(after, server.connections())
    if before.running:
        say("It ran already; it is kept until `continuum db stop`.")
    else:
        say("It is kept until `continuum db stop`.")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    server = _server(arguments)
    was_running = server.status().running
    connections = server.connections() if was_running else None
    if not server.stop():
        say(f"not running in {server.home}")
    elif was_running and connections is None:
        say(f"stopped in {server.home}; how many connections it had is unknown, they are closed now")
    elif connections:
        plural = "s" if connections > 1 else ""
        say(f"stopped in {server.home}; it had {connections} connection{plural}, now closed")
    else:
        say(f"stopped in {server.home}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    server = _server(arguments)
    status = server.status()
    _print_status(status, server.connections() if status.running else None)
    return 0 if status.running else 1


def _print_status(status: Status, connections: int | None) -> None:
    from continuum.embedded.places import left_behind

    say("running" if status.running else "starting" if status.starting else "stopped")
    rows = {
        "home": status.home,
        "data": status.data,
        "version": status.version,
        "url": status.url,
        "tcp url": status.tcp_url and "on 127.0.0.1; `continuum db url --tcp` prints it with its password",
        "connections": ("unknown" if connections is None else connections) if status.running else None,
        "kept": ("yes, until `continuum db stop`" if status.kept else "no") if status.running else None,
    }
    for name, value in rows.items():
        if value is not None:
            say(f"  {name + ':':13}{value}")
    for place, gone in left_behind():
        say(f"left behind: the data of {gone}, which is gone, lies in {place}; remove it if nobody needs it")
    if os.environ.get("CONTINUUM_DATABASE_URL"):
        say("CONTINUUM_DATABASE_URL is set, so programs use that database and not this server.")


def _url(arguments: argparse.Namespace) -> int:
    status = _server(arguments).status()
    url = status.tcp_url if arguments.tcp else status.url
    if url is not None:
        say(url)
        return 0
    from continuum.embedded import EmbeddedError

    if status.running:
        hint = "has no port: `continuum db stop`, then `continuum db start --port PORT`"
    else:
        hint = "does not run: `continuum db start` starts it"
    return complain(EmbeddedError(f"the embedded Postgres in {status.home} {hint}"), exit_code=1)


def _migrate(arguments: argparse.Namespace) -> int:
    import asyncio

    from continuum._journal.migrate import migrate

    show_log(embedded=logging.INFO)  # a database that one did not think of is used: say which
    schema = _schema(arguments)
    with _database(arguments) as (url, name):
        applied = asyncio.run(migrate(url, schema=schema))
        say(f"database {name}")
    for name in applied:
        say(f"applied {name}")
    say(f"schema {schema} is up to date" if not applied else f"schema {schema} is now up to date")
    return 0


def _roles(arguments: argparse.Namespace) -> int:
    from continuum._journal.migrate import roles_script

    say(roles_script(_schema(arguments)).rstrip("\n"))
    return 0


@contextlib.contextmanager
def _database(arguments: argparse.Namespace) -> Generator[tuple[str, str]]:
    """Give the URL that programs would use, and what to call it.

    If it is that of the embedded server, that one runs for the block.
    """
    url = arguments.url or (os.environ.get("CONTINUUM_DATABASE_URL") if arguments.home is None else None)
    if url:
        from continuum._journal.connections import shown

        yield url, shown(url)
    else:
        server = _server(arguments)
        with server.running() as embedded:
            yield embedded, f"embedded in {server.home}"


def _schema(arguments: argparse.Namespace) -> str:
    return str(arguments.schema or os.environ.get("CONTINUUM_SCHEMA") or "continuum")


def _server(arguments: argparse.Namespace) -> Server:
    from continuum.embedded import Server

    return Server(arguments.home)
