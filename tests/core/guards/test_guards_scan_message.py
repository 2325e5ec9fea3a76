"""The scan at decoration: how it finds the source, and where it says a finding is."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from continuum._core.guards import scan
from continuum.errors import NotDeterministic

Snippet = Callable[..., Any]


def refused(function: Snippet) -> NotDeterministic:
    with pytest.raises(NotDeterministic) as caught:
        scan(function, "workflow snippet")
    return caught.value


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
