"""The scan at decoration: what ``side_effect`` exempts, and what it must leave alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dates
import os
import pathlib
import random
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pytest

from continuum._core.guards import scan
from continuum.errors import NotDeterministic

Snippet = Callable[..., Any]
SEEDED = random.Random(4)


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
    return await side_effect(uuid.uuid4)  # noqa: F821 (as with a late import)


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
    return time.time(), random.random(), uuid.uuid4()


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
    for random in things:  # noqa: F402 (the shadowing is the case)
        random.random()
    with things as uuid:
        uuid.uuid4()
    try:
        return None
    except ValueError as os:
        return os.environ


async def time_from_a_pattern(thing: Any) -> Any:
    match thing:
        case [time, *random]:
            return time.time(), random.random()
        case {"a": os, **socket}:
            return os.environ, socket.socket
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
    return (
        random.Random(3),
        random.Random(x=3),
        random.Random(*[3]),
        SEEDED.random(),
        isinstance(3, random.Random),
    )


async def time_of_a_given_moment() -> Any:
    return (
        time.gmtime(0),
        time.strftime("%Y", time.gmtime(0)),
        uuid.UUID(int=3),
        uuid.uuid5(uuid.NAMESPACE_DNS, "a"),
    )


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
    listed = sorted(list(set(items)))  # noqa: C414 (the list is the case)
    return len(set(items)), listed, sum(1 for i in set(items) if i), {i.upper() for i in {*items}}


async def set_of_their_own(items: list[str], set: Any) -> list[str]:
    return [item.upper() for item in set(items)]


async def id_as_keyword(start: Any, id: str) -> Any:
    return start(id=id)


async def keyword_in_a_nested_class() -> Any:
    class Thing:
        time = 3

        def later(self) -> int:
            return self.time

    return Thing


async def import_without_use() -> None:
    import subprocess  # noqa: F401 (unused is the case)


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
