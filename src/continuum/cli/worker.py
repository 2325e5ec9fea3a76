"""``continuum worker``: a process that runs the workflows and activities of some modules.

The rule: whatever is wrong with the modules or the options is told before the database is asked for anything.
With ``--processes`` this process runs nothing itself: see ``supervisor``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from continuum.cli.options import Commands, add_verb, database, seconds, whole

if TYPE_CHECKING:
    from continuum.cli.stopping import Stopping

MOST_PORT = 65_535
logger = logging.getLogger("continuum.worker")
COLLECT_AFTER = 50_000  # objects made and not freed: about a thousand machines
ABOUT = """Modules are found from the working directory and PYTHONPATH; a module contributes what it defines
itself. On SIGTERM or SIGINT it takes no more work, lets running activities end within --drain, and ends with 0; a
second signal ends it at once."""
_SETTINGS: dict[str, tuple[Any, str]] = {
    "lease": (seconds, "after so long without a heartbeat others take its runs over (10)"),
    "heartbeat": (seconds, "how often it gives a sign of life (2)"),
    "poll": (seconds, "how often it asks for what nobody told it of (1)"),
    "claim_batch": (whole(1), "runs claimed at once (100)"),
    "cache": (whole(1), "runs held in memory (10000)"),
    "passivate_after": (seconds, "a run that has waited so long leaves memory (5)"),
    "max_activities": (whole(1), "async activities at a time (1000)"),
    "threads": (whole(1), "sync activities at a time (32)"),
    "max_child_depth": (whole(0), "how deep below its root a child may lie (10)"),
    "drain": (seconds, "how long running activities get when it stops (10)"),
    "blocked_after": (seconds, "how long a workflow may block the loop before it is reported (1)"),
    "start_to_close": (seconds, "bound of an activity's attempt, for those that do not say (none)"),
}


def add(commands: Commands) -> None:
    """Add ``worker``."""
    parser = add_verb(
        commands,
        "worker",
        _run,
        "run the workflows and activities of modules",
        about=ABOUT,
        example="continuum worker shop.orders path/to/billing.py --processes 4 --port 8080",
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="a dotted name, or a path to a .py file")
    parser.add_argument(
        "--processes", type=whole(1), default=1, metavar="N", help="worker processes to keep running"
    )
    parser.add_argument(
        "--port",
        type=whole(1),
        help="answer GET /healthz and /readyz there; of several processes the first takes this port, the second "
        "the next one, and so on",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of --port (127.0.0.1)")
    parser.add_argument("--no-migrate", action="store_true", help="refuse a schema that is not up to date")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="of stderr (info)"
    )
    parser.add_argument(
        "--supervised", type=int, help=argparse.SUPPRESS
    )  # the descriptor of our supervisor's socket
    settings = parser.add_argument_group("settings", "each one is CONTINUUM_<NAME> in the environment too")
    for name, (kind, says) in _SETTINGS.items():
        metavar = "SECONDS" if kind is seconds else "N"
        settings.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=says)


def _run(arguments: argparse.Namespace) -> int:
    from continuum._engine.settings import WorkerSettings

    _log_to_stderr(arguments.log_level)
    given = {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    settings = WorkerSettings.resolve(given, os.environ)
    _check_ports(arguments)
    if arguments.processes > 1:
        from continuum.cli.supervisor import supervise

        arguments_of = partial(_arguments_of, arguments)
        return supervise(arguments.processes, arguments_of, drain_s=settings.seconds("drain"))
    from continuum.cli.modules import load

    modules = load(arguments.modules)
    counted = _counted(modules)
    asyncio.run(_serve(arguments, modules, given, counted))
    return 0


def _check_ports(arguments: argparse.Namespace) -> None:
    from continuum.errors import InvalidSetting

    if arguments.port is not None and (last := arguments.port + arguments.processes - 1) > MOST_PORT:
        raise InvalidSetting(f"{last} is not a port: a port is 1 to {MOST_PORT}, and each process takes one")


def _arguments_of(arguments: argparse.Namespace, number: int, descriptor: int) -> list[str]:
    """Return the command line of one of several processes."""
    names = ("url", "schema", "home", "host", "log_level", *_SETTINGS)
    options = {name: getattr(arguments, name) for name in names} | {"supervised": descriptor}
    if arguments.port is not None:
        options["port"] = arguments.port + number
    flags = ["--no-migrate"] if arguments.no_migrate else []
    said = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    return [*(["--debug"] if arguments.debug else []), "worker", *said, *flags, "--", *arguments.modules]


def _counted(modules: Sequence[ModuleType]) -> str:
    """Check the definitions of modules, and say how many there are. Raises ``InvalidSetting``."""
    from continuum.definitions import Definitions
    from continuum.errors import InvalidSetting

    try:
        definitions = Definitions(modules)
        definitions.prepare()
    except (TypeError, ValueError) as error:
        raise InvalidSetting(str(error)) from error
    names = ", ".join(module.__name__ for module in modules)
    found = (("workflow", "workflows", definitions.workflows), ("activity", "activities", definitions.activities))
    counts = [f"{len(some)} {one if len(some) == 1 else more}" for one, more, some in found]
    return f"{' and '.join(counts)} of {names}"


async def _serve(
    arguments: argparse.Namespace, modules: Sequence[ModuleType], given: dict[str, Any], counted: str
) -> None:
    """Run the worker until it is asked to stop, and then until everything has been handed over."""
    from continuum.cli.stopping import Stopping
    from continuum.client import connect
    from continuum.worker import Worker

    stopping = Stopping()
    with stopping.watch(), _supervised(arguments.supervised, stopping) as tell_ready:
        stopping.abandon_if_asked()
        try:
            migrate = False if arguments.no_migrate else None
            async with (
                connect(**database(arguments), migrate=migrate) as client,
                Worker(client, modules, port=arguments.port, host=arguments.host, **given) as worker,
            ):
                stopping.drain_if_asked()
                _spare_the_collector()
                logger.info("worker %s is ready: %s; %s", worker.id, counted, _place(arguments))
                tell_ready()
                await stopping.asked.wait()
                logger.info("worker %s was asked to stop: it drains", worker.id)
        except asyncio.CancelledError:
            if not stopping.asked.is_set():
                raise
    logger.info("stopped")


def _spare_the_collector() -> None:
    """Let the garbage collector look more seldom, and not at what stays.

    A machine is some sixty objects, and ten thousand of them are alive at a time: with Python's own thresholds
    more than half of a child's cost was looking at them again and again (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


def _place(arguments: argparse.Namespace) -> str:
    """Say which database is used, without its password."""
    from continuum._database import Database
    from continuum._journal.connections import shown

    chosen = Database.choose(**database(arguments))
    if chosen.url is not None:
        return f"{shown(chosen.url)} schema {chosen.schema}"
    from continuum.embedded import Server

    return f"embedded in {Server(chosen.home).home} schema {chosen.schema}"


@contextlib.contextmanager
def _supervised(descriptor: int | None, stopping: Stopping) -> Generator[Callable[[], None]]:
    """Stop when the supervisor is gone; gives what tells it that this process is ready."""
    if descriptor is None:
        yield lambda: None
        return
    from continuum.cli.supervisor import READY

    loop = asyncio.get_running_loop()
    with socket.socket(fileno=descriptor) as supervisor:
        supervisor.set_inheritable(False)  # what activities start must not keep it open
        supervisor.setblocking(False)

        def gone() -> None:
            loop.remove_reader(supervisor)
            logger.warning("the supervisor is gone")
            stopping.ask()

        def tell_ready() -> None:
            with contextlib.suppress(OSError):
                supervisor.send(READY)

        loop.add_reader(supervisor, gone)  # it never says anything, so whatever comes is its end
        try:
            yield tell_ready
        finally:
            loop.remove_reader(supervisor)


def _log_to_stderr(level: str) -> None:
    form = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(process)d %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    form.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    logging.basicConfig(level=level.upper(), handlers=[handler])
