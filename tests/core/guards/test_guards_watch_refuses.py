"""The guard at run time: what a turn may not call, and through which helpers."""

from __future__ import annotations

import contextlib
import functools
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
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from random import choice
from time import time as current_time
from typing import Any

import pytest
from tests.core.guards import turns
from tests.core.guards.turns import Function, Turn, apply

from continuum._core.guards.watch import LOOKS
from continuum.errors import NotDeterministic

MONITORING = sys.version_info >= (3, 12)


def clock() -> float:
    return time.time()


def clock_two_calls_deep() -> float:
    return clock()


def clock_imported_by_name() -> float:
    return current_time()


def sleep_with_stars() -> None:
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
    return list(map(lambda _: time.time(), [1]))  # noqa: C417 (the call is the case)


REFUSED: list[tuple[Function, str]] = [
    (clock, "time.time"),
    (clock_two_calls_deep, "time.time"),
    (clock_imported_by_name, "time.time"),
    (sleep_with_stars, "time.sleep"),
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
    assert caught.value.where.rpartition(":")[0] in {__file__, turns.__file__}


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
            open(file=os.devnull)  # noqa: SIM115 (never opened)
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
        return clock(*[])

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
