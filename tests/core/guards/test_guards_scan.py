"""The scan at decoration: what it refuses, with which way out, and what it must leave alone.

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
SEEDED = random.Random(4)
clock = time.time


class Birthday(date):
    pass


class FrozenClock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> FrozenClock:
        return cls(2020, 1, 1)


class Document:
    def open(self) -> str:
        return "opened"

    @property
    def time(self) -> str:
        raise AssertionError("the scan ran a property")


DOCUMENT = Document()


def refused(function: Snippet) -> NotDeterministic:
    with pytest.raises(NotDeterministic) as caught:
        scan(function, "workflow snippet")
    return caught.value


# What is refused


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
    return [item for item in frozenset(items)]


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


# Where it says it


async def two_findings() -> Any:
    first = 1

    return time.time(), random.random(), first


def test_message_names_file_and_line_of_every_finding() -> None:
    error = refused(two_findings)
    line = two_findings.__code__.co_firstlineno + 3
    place = f"workflow snippet, {two_findings.__code__.co_filename}:{line}"
    assert error.where == place
    assert error.what == "time.time"
    assert [text.count(place) for text in str(error).splitlines()] == [1, 1]
    assert "random.random" in str(error)


class Flows:
    @staticmethod
    @functools.cache
    def marker() -> None: ...

    async def indented(self) -> Any:
        text = """
that reaches the margin
"""
        return text, time.time()


def test_line_of_an_indented_function_is_that_of_the_file() -> None:
    error = refused(Flows.indented)
    assert error.where.endswith(f":{Flows.indented.__code__.co_firstlineno + 4}")


def test_line_of_a_decorated_function_is_that_of_the_file() -> None:
    def decorate(function: Snippet) -> Snippet:
        return function

    @decorate
    @decorate
    async def snippet() -> float:
        return time.time()

    assert refused(snippet).where.endswith(f":{snippet.__code__.co_firstlineno + 3}")


def test_function_without_source_is_trusted() -> None:
    namespace: dict[str, Any] = {"time": time}
    exec("async def snippet(): return time.time()", namespace)
    scan(namespace["snippet"], "")


def test_what_is_no_function_is_trusted() -> None:
    scan(print, "")
    scan(functools.partial(print), "")


# What side_effect exempts


async def side_effect_with_a_lambda() -> Any:
    from continuum import side_effect

    return await side_effect(lambda: time.time())


async def side_effect_with_the_function_itself() -> Any:
    from continuum import side_effect as effect

    return await effect(time.time)


async def side_effect_through_the_module() -> Any:
    import continuum

    return await continuum.side_effect(lambda: (time.time(), random.random()))


async def side_effect_not_resolved() -> Any:
    return await side_effect(uuid.uuid4)  # type: ignore[name-defined]  # noqa: F821 (as with a late import)


async def side_effect_with_a_nested_function() -> Any:
    from continuum import side_effect

    def read() -> float:
        with open("journal.txt"):
            return time.time()

    stamp = lambda: time.time()  # noqa: E731 (the assignment is the case)
    await side_effect(stamp)
    return await side_effect(read)


async def nested_function_used_otherwise_too() -> Any:
    from continuum import side_effect

    def read() -> float:
        return time.time()

    await side_effect(read)
    return read()


async def side_effect_of_somebody_else() -> Any:
    from unittest.mock import side_effect

    return side_effect(time.time)


@pytest.mark.parametrize(
    "snippet",
    [
        side_effect_with_a_lambda,
        side_effect_with_the_function_itself,
        side_effect_through_the_module,
        side_effect_not_resolved,
        side_effect_with_a_nested_function,
    ],
)
def test_arguments_of_side_effect_may_use_anything(snippet: Snippet) -> None:
    scan(snippet, "")


@pytest.mark.parametrize("snippet", [nested_function_used_otherwise_too, side_effect_of_somebody_else])
def test_what_is_not_only_for_side_effect_is_refused(snippet: Snippet) -> None:
    assert refused(snippet).what == "time.time"


# What it leaves alone


async def annotations(at: time.struct_time, path: os.PathLike[str]) -> threading.Thread | None:
    thread: threading.Thread | None = None
    return thread


def marked_at(at: float) -> Callable[[Snippet], Snippet]:
    return lambda function: function


@marked_at(time.time())
async def own_decorator() -> None: ...


async def durable_sleep() -> None:
    await asyncio.sleep(1)
    async with asyncio.timeout(3), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(1))


async def dates_from_values() -> Any:
    return datetime(2020, 1, 1), datetime.fromisoformat("2020-01-01"), date.fromordinal(3), dates.timedelta(1)


async def clock_of_a_subclass() -> Any:
    return FrozenClock.now()


async def time_as_parameter(time: Any, *, random: Any, **uuid: Any) -> Any:
    return time.time(), random.random(), uuid.uuid4()  # type: ignore[attr-defined]


async def time_as_local() -> Any:
    time = DOCUMENT
    return time.time


async def time_in_a_comprehension(times: list[Any]) -> list[Any]:
    return [time.time() for time in times]


async def time_as_lambda_parameter() -> Any:
    return lambda time: time.time()


async def time_as_walrus_loop_with_and_except(things: Any) -> Any:
    if time := things:
        time.time()
    for random in things:
        random.random()
    with things as uuid:
        uuid.uuid4()
    try:
        return None
    except ValueError as os:
        return os.environ  # type: ignore[attr-defined]


async def time_from_a_pattern(thing: Any) -> Any:
    match thing:
        case [time, *random]:
            return time.time(), random.random()  # type: ignore[attr-defined]
        case {"a": os, **socket}:
            return os.environ, socket.socket  # type: ignore[attr-defined]
        case _:
            return None


async def time_bound_twice(thing: Any) -> Any:
    t = time
    if thing:
        t = thing
    return t.time()


async def method_of_a_user_object(thing: Any) -> Any:
    return DOCUMENT.open(), thing.time(), thing.random.choice([1])


async def property_of_a_user_object() -> Any:
    return DOCUMENT.time


async def names_from_continuum() -> Any:
    from continuum import now, random, uuid4

    return random().choice([1]), random().random(), uuid4(), now()


async def seeded() -> Any:
    return random.Random(3), random.Random(x=3), random.Random(*[3]), SEEDED.random(), isinstance(3, random.Random)  # type: ignore[call-arg]


async def time_of_a_given_moment() -> Any:
    return time.gmtime(0), time.strftime("%Y", time.gmtime(0)), uuid.UUID(int=3), uuid.uuid5(uuid.NAMESPACE_DNS, "a")


async def exceptions_and_constants() -> Any:
    try:
        return subprocess.PIPE, socket.AF_INET, os.sep, os.path.join("a", "b"), pathlib.PurePath("a")
    except (subprocess.CalledProcessError, socket.gaierror, TimeoutError, concurrent.futures.TimeoutError):
        raise OSError from None


async def printing_and_logging() -> None:
    import logging

    print("hello")
    logging.getLogger(__name__).warning("hello")


async def strings() -> str:
    return "time.time() and random.random()"


async def ordered_sets(items: list[str]) -> Any:
    for item in sorted(set(items)):
        print(item)
    return len(set(items)), sorted(list(set(items))), sum(1 for i in set(items) if i), {i for i in {*items}}


async def set_of_their_own(items: list[str], set: Any) -> list[str]:
    return [item for item in set(items)]


async def id_as_keyword(start: Any, id: str) -> Any:
    return start(id=id)


async def keyword_in_a_nested_class() -> Any:
    class Thing:
        time = 3

        def later(self) -> int:
            return self.time

    return Thing


async def import_without_use() -> None:
    import subprocess


async def dynamic_import() -> Any:
    import importlib

    return importlib.import_module("json")


ACCEPTED: list[Snippet] = [
    annotations,
    own_decorator,
    durable_sleep,
    dates_from_values,
    clock_of_a_subclass,
    time_as_parameter,
    time_as_local,
    time_in_a_comprehension,
    time_as_lambda_parameter,
    time_as_walrus_loop_with_and_except,
    time_from_a_pattern,
    time_bound_twice,
    method_of_a_user_object,
    property_of_a_user_object,
    names_from_continuum,
    seeded,
    time_of_a_given_moment,
    exceptions_and_constants,
    printing_and_logging,
    strings,
    ordered_sets,
    set_of_their_own,
    id_as_keyword,
    keyword_in_a_nested_class,
    import_without_use,
    dynamic_import,
]


@pytest.mark.parametrize("snippet", ACCEPTED, ids=[snippet.__name__ for snippet in ACCEPTED])
def test_scan_does_not_misfire(snippet: Snippet) -> None:
    scan(snippet, "")


def test_name_assigned_later_in_the_enclosing_function_is_trusted() -> None:
    async def snippet() -> Any:
        return later.time()

    scan(snippet, "")
    later = time
    assert later is time
