"""The scan at decoration: what it refuses, where it says it is, and with which way out.

The snippets are real functions, never run, so that their source is found the way an author's is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dates
import functools
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time
import time as watch_time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from datetime import datetime as moment
from os import environ, getenv
from random import choice
from typing import Any

import pytest

from continuum._core.guards import scan
from continuum.errors import NotDeterministic

Snippet = Callable[..., Any]
POOL = concurrent.futures.ThreadPoolExecutor(max_workers=1)
clock = time.time


class Birthday(date):
    pass


def refused(function: Snippet) -> NotDeterministic:
    with pytest.raises(NotDeterministic) as caught:
        scan(function, "workflow snippet")
    return caught.value


async def clock_called() -> float:
    return time.time()


async def clock_under_another_name() -> float:
    return watch_time.monotonic()


async def clock_mentioned(items: list[Any]) -> list[Any]:
    return sorted(items, key=time.perf_counter)


async def clock_from_a_global_alias() -> float:
    return clock()


async def clock_from_a_local_import() -> float:
    import time as t

    return t.time_ns()


async def clock_from_a_local_from_import() -> float:
    from time import time as current

    return current()


async def clock_from_an_assigned_alias() -> float:
    current = time.time
    return current()


async def clock_from_an_assigned_module() -> float:
    module = time
    return module.monotonic()


async def clock_in_a_lambda() -> Any:
    return lambda: time.time()


async def clock_in_a_nested_function() -> Any:
    async def inner(seconds: float) -> float:
        return seconds + time.time()

    return await inner(1)


async def clock_in_a_default_of_a_nested_function() -> Any:
    def inner(at: float = time.time()) -> float:
        return at

    return inner()


async def clock_in_a_comprehension(items: list[int]) -> list[float]:
    return [time.time() for _ in items]


async def clock_in_an_f_string() -> str:
    return f"at {time.time():.1f}"


async def clock_in_a_class_body() -> Any:
    class Stamp:
        at = time.time()

    return Stamp


async def clock_behind_a_global_statement() -> float:
    global clock
    return clock()


async def blocking_sleep() -> None:
    time.sleep(1)


async def gmtime_without_argument() -> Any:
    return time.gmtime()


async def strftime_of_the_present() -> str:
    return time.strftime("%Y")


async def datetime_now() -> datetime:
    return datetime.now(UTC)


async def datetime_now_through_module() -> datetime:
    return dates.datetime.now()


async def datetime_under_another_name() -> datetime:
    return moment.utcnow()


async def date_today_of_a_subclass() -> date:
    return Birthday.today()


async def random_module() -> float:
    return random.random()


async def random_choice_imported() -> int:
    return choice([1, 2])


async def random_without_seed() -> Any:
    return random.Random()


async def random_with_none_as_seed() -> Any:
    return random.Random(None)


async def random_from_the_system() -> Any:
    return random.SystemRandom(1)


async def uuid_four() -> Any:
    return uuid.uuid4()


async def secret() -> str:
    import secrets

    return secrets.token_hex()


async def operating_system_randomness() -> bytes:
    return os.urandom(4)


async def environment_by_subscript() -> str:
    return os.environ["HOME"]


async def environment_method() -> str | None:
    return environ.get("HOME")


async def environment_function() -> str | None:
    return getenv("HOME")


async def arguments_of_the_process() -> list[str]:
    return sys.argv


async def file_opened() -> None:
    with open("journal.txt"):
        pass


async def path_class_method() -> Any:
    return pathlib.Path.cwd()


async def os_path() -> bool:
    return os.path.exists("journal.txt")


async def socket_made() -> Any:
    return socket.socket()


async def process_run() -> Any:
    return subprocess.run(["true"])


async def thread_made() -> Any:
    return threading.Thread(target=print)


async def thread_through_asyncio() -> Any:
    return await asyncio.to_thread(print)


async def pool_from_outside() -> Any:
    return POOL.submit(print)


async def pool_made() -> Any:
    return concurrent.futures.ThreadPoolExecutor()


async def as_completed_of_asyncio(refs: list[Any]) -> None:
    for ref in asyncio.as_completed(refs):
        await ref


async def another_loop() -> None:
    asyncio.run(asyncio.sleep(1))


async def network_of_a_module_not_loaded() -> Any:
    import requests

    return requests.get("https://example.org")


async def typed_in() -> str:
    return input()


async def identity(value: object) -> int:
    return id(value)


async def hashed(value: object) -> int:
    return hash(value)


async def loop_over_a_set_display(a: str, b: str) -> None:
    for item in {a, b}:
        print(item)


async def loop_over_a_set(items: list[str]) -> None:
    for item in set(items):
        print(item)


async def comprehension_over_a_frozenset(items: list[str]) -> list[str]:
    return [item.upper() for item in frozenset(items)]


async def list_of_a_set(items: list[str]) -> list[str]:
    return list(set(items))


REFUSED: list[tuple[Snippet, str, str]] = [
    (clock_called, "time.time", "now()"),
    (clock_under_another_name, "time.monotonic", "now()"),
    (clock_mentioned, "time.perf_counter", "now()"),
    (clock_from_a_global_alias, "time.time", "now()"),
    (clock_from_a_local_import, "time.time_ns", "now()"),
    (clock_from_a_local_from_import, "time.time", "now()"),
    (clock_from_an_assigned_alias, "time.time", "now()"),
    (clock_from_an_assigned_module, "time.monotonic", "now()"),
    (clock_in_a_lambda, "time.time", "now()"),
    (clock_in_a_nested_function, "time.time", "now()"),
    (clock_in_a_default_of_a_nested_function, "time.time", "now()"),
    (clock_in_a_comprehension, "time.time", "now()"),
    (clock_in_an_f_string, "time.time", "now()"),
    (clock_in_a_class_body, "time.time", "now()"),
    (clock_behind_a_global_statement, "time.time", "now()"),
    (blocking_sleep, "time.sleep", "asyncio.sleep"),
    (gmtime_without_argument, "time.gmtime", "now()"),
    (strftime_of_the_present, "time.strftime", "now()"),
    (datetime_now, "datetime.datetime.now", "now()"),
    (datetime_now_through_module, "datetime.datetime.now", "now()"),
    (datetime_under_another_name, "datetime.datetime.utcnow", "now()"),
    (date_today_of_a_subclass, "datetime.date.today", "now()"),
    (random_module, "random.random", "random()"),
    (random_choice_imported, "random.choice", "random()"),
    (random_without_seed, "random.Random", "seed"),
    (random_with_none_as_seed, "random.Random", "seed"),
    (random_from_the_system, "random.SystemRandom", "activity"),
    (uuid_four, "uuid.uuid4", "uuid4()"),
    (secret, "secrets.token_hex", "activity"),
    (operating_system_randomness, "os.urandom", "activity"),
    (environment_by_subscript, "os.environ", "side_effect"),
    (environment_method, "os.environ", "side_effect"),
    (environment_function, "os.getenv", "side_effect"),
    (arguments_of_the_process, "sys.argv", "side_effect"),
    (file_opened, "open", "activity"),
    (path_class_method, "pathlib.Path.cwd", "activity"),
    (os_path, "os.path.exists", "activity"),
    (socket_made, "socket.socket", "activity"),
    (process_run, "subprocess.run", "activity"),
    (thread_made, "threading.Thread", "activity"),
    (thread_through_asyncio, "asyncio.to_thread", "activity"),
    (as_completed_of_asyncio, "asyncio.as_completed", "continuum.as_completed"),
    (another_loop, "asyncio.run", "TaskGroup"),
    (network_of_a_module_not_loaded, "requests.get", "activity"),
    (typed_in, "input", "input"),
    (identity, "id", "key"),
    (hashed, "hash", "key"),
    (loop_over_a_set_display, "iteration over a set", "sorted"),
    (loop_over_a_set, "iteration over a set", "sorted"),
    (comprehension_over_a_frozenset, "iteration over a set", "sorted"),
    (list_of_a_set, "iteration over a set", "sorted"),
]


@pytest.mark.parametrize(("snippet", "what", "instead"), REFUSED, ids=[row[0].__name__ for row in REFUSED])
def test_scan_refuses_and_says_what_to_use_instead(snippet: Snippet, what: str, instead: str) -> None:
    error = refused(snippet)
    assert error.what == what
    assert instead in error.instead


@pytest.mark.parametrize("snippet", [pool_from_outside, pool_made])
def test_scan_refuses_executors_made_here_or_elsewhere(snippet: Snippet) -> None:
    assert "Executor" in refused(snippet).what


def test_scan_refuses_a_clock_from_the_closure() -> None:
    tick = time.time

    async def snippet() -> float:
        return tick()

    assert refused(snippet).what == "time.time"


def test_scan_refuses_a_module_from_the_closure() -> None:
    import random as dice

    async def snippet() -> float:
        return dice.random()

    assert refused(snippet).what == "random.random"


def test_scan_looks_through_a_wrapper_that_names_what_it_wraps() -> None:
    @functools.wraps(clock_called)
    async def wrapper() -> Any:
        return await clock_called()

    assert refused(wrapper).what == "time.time"
