"""What a Worker cannot be made of is told at once, with the way out."""

from __future__ import annotations

from typing import Any

import pytest

import continuum
from continuum import Worker, connect
from tests.client import flows


@pytest.mark.parametrize("sources", ["flows", flows, None, 5])
async def test_sources_are_a_list(database: str, sources: Any) -> None:
    async with connect(database, migrate=False) as client:
        with pytest.raises(TypeError, match=r"a list of modules or definitions, as \[flows\]"):
            Worker(client, sources)


async def test_a_worker_with_nothing_to_run_is_refused(database: str) -> None:
    async with connect(database, migrate=False) as client:
        with pytest.raises(ValueError, match="nothing to run"):
            Worker(client, [])


@pytest.mark.parametrize("client", ["postgresql://x", None, continuum])
def test_a_worker_wants_a_client(client: Any) -> None:
    with pytest.raises(TypeError, match="what `async with connect\\(\\)` gives"):
        Worker(client, [flows])


async def test_an_unknown_setting_names_the_nearest(database: str) -> None:
    async with connect(database, migrate=False) as client:
        with pytest.raises(TypeError, match="did you mean 'cache'"):
            Worker(client, [flows], cahce=5)  # type: ignore[call-arg]


class Deaf:
    async def __call__(self, name: str, fields: object) -> None: ...


async def lazy(name: str, fields: object) -> None: ...


@pytest.mark.parametrize(
    ("listeners", "says"),
    [
        (print, r"a list of functions, as \[told\]"),
        ("told", r"a list of functions, as \[told\]"),
        ([5], "a function of a name and its fields: got 5"),
        ([lazy], "a plain function, it is not awaited"),
        ([Deaf()], "a plain function, it is not awaited"),
    ],
)
async def test_listeners_are_a_list_of_plain_functions(database: str, listeners: Any, says: str) -> None:
    async with connect(database, migrate=False) as client:
        with pytest.raises(TypeError, match=says):
            Worker(client, [flows], listeners=listeners)


async def test_listeners_may_come_from_an_iterator(database: str) -> None:
    async with connect(database, migrate=False) as client:
        Worker(client, [flows], listeners=iter([print]))  # type: ignore[arg-type]
