"""The guard at run time: what a turn may not call, through which helpers, and what must pass.

``Turn`` stands for the workflow loop: it says whether a turn is going on, and drives a coroutine in one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import logging
import os
import pathlib
import queue
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from random import choice
from time import time as current_time
from typing import Any

import pydantic
import pytest

from continuum._core.guards import Watch
from continuum._core.guards.watch import LOOKS, PROFILED_TURNS
from continuum.errors import NotDeterministic

MONITORING = sys.version_info >= (3, 12)
Function = Callable[..., Any]


class Turn:
    """A turn that is on or off, and how often the watch asked."""

    def __init__(self) -> None:
        self.on = False
        self.asked = 0
        self.watch = Watch(self.is_on)

    def is_on(self) -> bool:
        self.asked += 1
        return self.on

    def run(self, workflow: Function, *args: Any) -> Any:
        """Drive a workflow from start to end in one turn."""
        self.watch.register(workflow)
        must_end = self.watch.begin(workflow)
        self.on = True
        try:
            return drive(workflow, *args)
        finally:
            self.on = False
            if must_end:
                self.watch.end()


def drive(workflow: Function, *args: Any) -> Any:
    coroutine = workflow(*args)
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


@pytest.fixture
def turn() -> Iterator[Turn]:
    turn = Turn()
    yield turn
    turn.watch.close()


async def apply(function: Function) -> Any:
    """Be the workflow that calls one helper."""
    return function()


async def apply_to(function: Function, argument: Any) -> Any:
    """Be the workflow that calls one helper with an argument."""
    return function(argument)


# Helpers in user code


def clock() -> float:
    return time.time()


def clock_two_calls_deep() -> float:
    return clock()


def clock_imported_by_name() -> float:
    return current_time()


def clock_by_keyword() -> None:
    time.sleep(*[0])


def present() -> datetime:
    return datetime.now(UTC)


def present_utc() -> datetime:
    return datetime.utcnow()  # refused before it can warn that it is deprecated


def today() -> date:
    return date.today()


def dice() -> int:
    return random.choice([1, 2])


def dice_imported() -> int:
    return choice([1, 2])


def dice_in_c() -> float:
    return random.random()


def dice_unseeded() -> Any:
    return random.Random()


def dice_of_the_system() -> int:
    return secrets.choice([1, 2])


def identifier() -> uuid.UUID:
    return uuid.uuid4()


def blocking_sleep() -> None:
    time.sleep(0)


def opened() -> None:
    with open(file=os.devnull):
        pass


def read() -> str:
    return pathlib.Path(os.devnull).read_text()


def variable() -> str | None:
    return os.getenv("HOME")


def variable_of_environ() -> str | None:
    return os.environ.get("HOME")


def thread() -> None:
    threading.Thread(target=print)


def executor() -> Any:
    return ThreadPoolExecutor(1)


def connection() -> socket.socket:
    return socket.socket()


def process() -> Any:
    return subprocess.run(args=["true"])


def process_handle() -> Any:
    return subprocess.Popen(["true"])


def in_a_lambda() -> float:
    return (lambda: time.time())()


def in_a_generator() -> float:
    return sum(time.time() for _ in range(2))


def in_a_comprehension() -> list[float]:
    return [time.time() for _ in range(2)]


class Stamp:
    def __init__(self) -> None:
        self.at = time.time()


class Clock:
    def tell(self) -> float:
        return time.time()

    @classmethod
    def shout(cls) -> float:
        return time.time()

    @staticmethod
    def whisper() -> float:
        return time.time()

    def __call__(self) -> float:
        return time.time()

    def __enter__(self) -> float:
        return time.time()

    def __exit__(self, *_: object) -> None:
        pass


@dataclass
class Order:
    id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass
class Late:
    at: float = 0

    def __post_init__(self) -> None:
        self.at = time.time()


def logged(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@logged
def harmless(number: int = 1) -> int:
    return number + 1


@logged
def clock_behind_a_decorator() -> float:
    return time.time()


@functools.cache
def clock_cached() -> float:
    return time.time()


@contextlib.contextmanager
def timed() -> Iterator[float]:
    yield time.time()


def clock_in_a_context_manager() -> float:
    with timed() as at:
        return at


def clock_in_a_with_block() -> float:
    with Clock() as at:
        return at


def clock_of_a_partial() -> float:
    return functools.partial(clock)()


def clock_mapped() -> list[float]:
    return list(map(lambda _: time.time(), [1]))


REFUSED: list[tuple[Function, str]] = [
    (clock, "time.time"),
    (clock_two_calls_deep, "time.time"),
    (clock_imported_by_name, "time.time"),
    (clock_by_keyword, "time.sleep"),
    (present, "datetime.datetime.now"),
    (present_utc, "datetime.datetime.utcnow"),
    (today, "datetime.date.today"),
    (dice, "random.choice"),
    (dice_imported, "random.choice"),
    (dice_in_c, "random.random"),
    (dice_unseeded, "random.Random"),
    (dice_of_the_system, "random.SystemRandom" if not MONITORING else "secrets.choice"),
    (identifier, "uuid.uuid4"),
    (blocking_sleep, "time.sleep"),
    (opened, "open"),
    (read, "pathlib.Path.read_text"),
    (variable, "os.getenv"),
    (variable_of_environ, "os.environ"),
    (thread, "threading.Thread"),
    (executor, "concurrent.futures.ThreadPoolExecutor"),
    (connection, "socket.socket"),
    (process, "subprocess.run"),
    (process_handle, "subprocess.Popen"),
    (in_a_lambda, "time.time"),
    (in_a_generator, "time.time"),
    (in_a_comprehension, "time.time"),
    (Stamp, "time.time"),
    (Clock().tell, "time.time"),
    (Clock.shout, "time.time"),
    (Clock.whisper, "time.time"),
    (Clock(), "time.time"),
    (Order, "uuid.uuid4"),
    (Late, "time.time"),
    (clock_behind_a_decorator, "time.time"),
    (clock_cached, "time.time"),
    (clock_in_a_context_manager, "time.time"),
    (clock_in_a_with_block, "time.time"),
    (clock_of_a_partial, "time.time"),
    (clock_mapped, "time.time"),
    (time.time, "time.time"),
    (datetime.now, "datetime.datetime.now"),
]


def name_of(function: Function) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


@pytest.mark.parametrize(("helper", "what"), REFUSED, ids=[name_of(row[0]) for row in REFUSED])
def test_forbidden_call_is_refused_wherever_user_code_makes_it(turn: Turn, helper: Function, what: str) -> None:
    with pytest.raises(NotDeterministic) as caught:
        turn.run(apply, helper)
    assert caught.value.what == what
    assert pathlib.Path(__file__).name in caught.value.where


def test_refusal_names_the_line_of_the_call(turn: Turn) -> None:
    with pytest.raises(NotDeterministic) as caught:
        turn.run(apply, clock)
    assert caught.value.where.endswith(f":{clock.__code__.co_firstlineno + 1}")
    assert "now()" in caught.value.instead


def test_refused_call_does_not_happen(turn: Turn, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "made"

    def helper() -> None:
        with open(target, "w"):
            pass

    with pytest.raises(NotDeterministic):
        turn.run(apply, helper)
    assert not target.exists()


def test_refusal_comes_again_every_time(turn: Turn) -> None:
    for _ in range(LOOKS + 5):
        with pytest.raises(NotDeterministic):
            turn.run(apply, clock)


def test_handler_of_a_refusal_goes_on_undisturbed(turn: Turn) -> None:
    async def workflow() -> str:
        try:
            open(file=os.devnull)
        except NotDeterministic as error:
            return str(b"caught", encoding="ascii") + error.what
        return ""

    assert turn.run(workflow) == "caughtopen"


def test_awaited_helper_and_own_task_are_covered(turn: Turn) -> None:
    async def inner() -> float:
        return time.time()

    async def workflow() -> float:
        return await inner()

    with pytest.raises(NotDeterministic):
        turn.run(workflow)


def test_methods_of_instances_made_outside_are_refused(turn: Turn) -> None:
    with ThreadPoolExecutor(1) as pool, socket.socket() as connection:
        for call in (
            lambda: pool.submit(print),
            lambda: connection.getsockname(),
            lambda: threading.Thread.start(threading.current_thread()),
            lambda: queue.Queue().get(),
            lambda: threading.Event().wait(0),
        ):
            with pytest.raises(NotDeterministic):
                turn.run(apply, call)


def test_helper_called_with_stars_is_covered(turn: Turn) -> None:
    def helper() -> float:
        return clock(*[], **{})

    with pytest.raises(NotDeterministic):
        turn.run(apply, helper)


def test_second_function_behind_one_decorator_is_followed_too(turn: Turn) -> None:
    async def workflow() -> float:
        harmless(3)
        return clock_behind_a_decorator()

    with pytest.raises(NotDeterministic):
        turn.run(workflow)


def test_wrapped_workflow_is_watched_through_its_wrapper(turn: Turn) -> None:
    async def inner() -> float:
        return time.time()

    wrapped = logged(inner)
    with pytest.raises(NotDeterministic):
        turn.run(wrapped)


@pytest.mark.skipif(MONITORING, reason="a subscript is no call")
def test_subscript_of_the_environment_is_refused_where_the_profiler_sees_it(turn: Turn) -> None:
    with pytest.raises(NotDeterministic):
        turn.run(apply, lambda: os.environ["HOME"])


# What passes


class Model(pydantic.BaseModel):
    at: datetime
    stamp: float = pydantic.Field(default_factory=time.time)
    id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)

    @pydantic.field_validator("at")
    @classmethod
    def in_the_past(cls, at: datetime) -> datetime:
        assert at < datetime.now(UTC)
        return at


def validates() -> Any:
    adapter = pydantic.TypeAdapter(list[Model])
    value = adapter.validate_json('[{"at": "2020-01-01T00:00:00Z"}]')
    return adapter.dump_json(value), Model(at=datetime(2020, 1, 1, tzinfo=UTC)), Model.model_json_schema()


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{datetime.now(UTC)} {os.getpid()} {record.getMessage()}"


def logs() -> None:
    logger = logging.getLogger("guards")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    logger.addHandler(handler)
    logger.warning("a warning with %s", "an argument", exc_info=True)
    logger.removeHandler(handler)
    print("printed")


def formats_a_traceback() -> str:
    try:
        raise ValueError("an error")
    except ValueError:
        return traceback.format_exc()


def waits() -> Any:
    sleeping = asyncio.sleep(0)
    sleeping.close()
    return datetime(2020, 1, 1), datetime.fromisoformat("2020-01-01"), random.Random(3).choice([1]), date(2020, 1, 1)


def random_with_seed_in_stars() -> Any:
    return random.Random(*[3]).random(), random.Random(**{"x": 3})


def uses_names_that_look_forbidden() -> Any:
    class Thing:
        def get(self, key: str) -> str:
            return key

        now = start = submit = choice = get

    def get(environ: Any, default: str = "") -> str:
        return default

    thing = Thing()
    return thing.now("a"), thing.start("b"), thing.submit("c"), thing.choice("d"), get(os.environ)


def passes_a_forbidden_object_on() -> str:
    return repr(time.time) + repr(socket.socket) + str(os.environ.__class__)


@pytest.mark.parametrize(
    "helper",
    [
        validates,
        logs,
        formats_a_traceback,
        waits,
        random_with_seed_in_stars,
        uses_names_that_look_forbidden,
        passes_a_forbidden_object_on,
    ],
)
def test_watch_does_not_misfire(turn: Turn, helper: Function) -> None:
    turn.run(apply, helper)
    turn.run(apply, helper)


def test_importing_a_module_in_a_turn_is_not_the_workflows_call(
    turn: Turn, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"fresh_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import os, time, uuid\n"
        "def load():\n    return os.environ.get('HOME'), time.time(), uuid.uuid4()\n"
        "LOADED = load()\n"
        "with open(__file__) as source:\n    TEXT = source.read()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = turn.run(apply_to, importlib.import_module, name)
    assert module.TEXT
    with pytest.raises(NotDeterministic):
        turn.run(apply, module.load)


def test_code_in_site_packages_is_trusted_unless_a_workflow_lives_there(
    turn: Turn, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / f"installed_{tmp_path.name.replace('-', '_')}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "stamps.py").write_text("import time\ndef stamp():\n    return time.time()\n")
    (package / "flows.py").write_text("async def flow():\n    pass\n")
    monkeypatch.syspath_prepend(str(package.parent))
    stamp = importlib.import_module(f"{package.name}.stamps").stamp
    turn.run(apply, stamp)
    turn.watch.register(importlib.import_module(f"{package.name}.flows").flow)
    with pytest.raises(NotDeterministic):
        turn.run(apply, stamp)


def test_nothing_is_refused_outside_a_turn(turn: Turn) -> None:
    async def workflow() -> Any:
        return clock(), dice(), identifier(), variable(), harmless()

    turn.watch.register(workflow)
    for _ in range(LOOKS + 5):
        drive(workflow)
    with pytest.raises(NotDeterministic):
        turn.run(workflow)


def test_call_of_user_code_seen_outside_turns_only_is_followed_when_a_turn_comes(turn: Turn) -> None:
    async def workflow() -> float:
        return clock_two_calls_deep()

    turn.watch.register(workflow)
    for _ in range(LOOKS + 5):
        drive(workflow)
    with pytest.raises(NotDeterministic):
        turn.run(workflow)


def test_another_thread_is_outside_the_turn(turn: Turn) -> None:
    here = threading.get_ident()
    watch = Watch(lambda: turn.on and threading.get_ident() == here)
    watch.register(apply)
    turn.on = True
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(drive, apply, clock).result() > 0
    turn.on = False
    watch.close()


def test_everything_passes_while_suspended(turn: Turn) -> None:
    def side_effect(function: Function) -> Any:
        with turn.watch.suspended():
            with turn.watch.suspended():
                pass
            return function()

    async def workflow() -> tuple[float, int]:
        return side_effect(clock), side_effect(dice)

    async def then_not() -> float:
        side_effect(clock)
        return clock()

    turn.run(workflow)
    with pytest.raises(NotDeterministic):
        turn.run(then_not)


# Registration and cost


def test_registering_twice_changes_nothing(turn: Turn) -> None:
    turn.watch.register(apply)
    turn.watch.register(apply)
    turn.watch.register(print)
    turn.run(apply, harmless)
    with pytest.raises(NotDeterministic):
        turn.run(apply, clock)


def test_two_workflows_share_a_helper(turn: Turn) -> None:
    async def first() -> float:
        return clock()

    async def second() -> float:
        return clock()

    for workflow in (first, second, first):
        with pytest.raises(NotDeterministic):
            turn.run(workflow)


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_harmless_location_is_looked_at_a_bounded_number_of_times(turn: Turn) -> None:
    async def workflow(times: int) -> int:
        return sum([harmless(number) for number in range(times)])

    turn.run(workflow, 10_000)
    locations = 5  # range, sum, harmless, its wrapper's call; the wrapper's own code
    assert 0 < turn.asked <= locations * LOOKS
    asked = turn.asked
    turn.run(workflow, 10_000)
    assert turn.asked - asked <= locations


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_closed_watch_sees_nothing_and_gives_its_tool_id_back() -> None:
    before = [sys.monitoring.get_tool(tool) for tool in range(6)]
    turn = Turn()
    assert turn.watch.active
    turn.watch.register(apply)
    turn.watch.close()
    turn.watch.close()
    assert turn.run(apply, clock) > 0
    assert turn.asked == 0
    assert [sys.monitoring.get_tool(tool) for tool in range(6)] == before


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_without_a_free_tool_id_nothing_is_watched() -> None:
    taken = [tool for tool in range(6) if sys.monitoring.get_tool(tool) is None]
    for tool in taken:
        sys.monitoring.use_tool_id(tool, "somebody else")
    try:
        turn = Turn()
        assert not turn.watch.active
        assert turn.run(apply, clock) > 0
        turn.watch.close()
    finally:
        for tool in taken:
            sys.monitoring.free_tool_id(tool)


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_code_that_is_gone_is_forgotten(turn: Turn) -> None:
    async def workflow(number: int) -> Any:
        namespace: dict[str, Any] = {"__name__": "made"}
        exec(f"def made():\n    return len('{number}')", namespace)
        return namespace["made"]()

    for number in range(20):
        turn.run(workflow, number)
    gc.collect()
    watched = turn.watch._method._looks  # type: ignore[attr-defined]
    assert len(watched) < 10


@pytest.mark.skipif(MONITORING, reason="turns are framed on 3.11 only")
def test_profiler_is_set_during_the_first_turns_only(turn: Turn) -> None:
    async def workflow() -> int:
        return harmless()

    for _ in range(PROFILED_TURNS):
        assert turn.watch.begin(workflow)
        assert sys.getprofile() is not None
        turn.watch.end()
        assert sys.getprofile() is None
    assert not turn.watch.begin(workflow)
    assert sys.getprofile() is None


@pytest.mark.skipif(MONITORING, reason="turns are framed on 3.11 only")
def test_profiler_of_somebody_else_stays(turn: Turn) -> None:
    def profiler(*_: Any) -> None: ...

    sys.setprofile(profiler)
    try:
        assert not turn.watch.begin(apply)
        turn.watch.end()
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_turns_are_framed_where_the_profiler_is_used() -> None:
    assert Watch.needs_turns is not MONITORING
