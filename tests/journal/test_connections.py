"""Urls and connections: what cannot be used or reached is told on one line, without the password."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from continuum._journal.connections import check_url, connect, shown
from continuum._journal.journal import PostgresJournal
from continuum.errors import DatabaseUnreachable, InvalidSetting
from tests.journal.harness import select

SECRETS = ("hunter2", "s3cret", "t0psy", "cr3t", "50%off", "é")

WRONG = [
    "",
    "   ",
    "garbage",
    "http://example.org",
    "postgresql+psycopg://bob:hunter2@host/db",
    "sqlite:///file.db",
    "mysql://bob:hunter2@host/db",
    "postgresql://bob:50%off@host/db",
    'postgresql://bob:hunter2%zz"s3cret@host/db',
    "postgresql://bob:hunter2@host/db?nonsense=1",
    "postgresql://bob:hunter2@host/db?sslmode",
    "postgresql://bob@corp:hunter2@host/db",
    "postgresql://bob@corp:hunter2@host/db?sslmode",
    "host=h password='hunter2\\'s3cret t0psy' bogus",
    "host=h password='hunter2 s3cret",
    "host=h password=hunter2\\ s3cret bogus",
    "host=h password = hunter2&s3cret bogus",
    "host=h PASSWORD=hunter2",
    "postgresql://bob:hunter2\0@host/db",
    "postgresql://bob:\udc80hunter2@host/db",
    None,
    7,
    b"postgresql://bob:hunter2@host/db",
]


def told(error: BaseException) -> str:
    """Return an error's text, if it is one line and keeps the secret."""
    text = str(error)
    assert "\n" not in text
    assert not [secret for secret in SECRETS if secret in text]
    assert error.__cause__ is None or not [secret for secret in SECRETS if secret in str(error.__cause__)]
    return text


@pytest.mark.parametrize("url", WRONG, ids=range(len(WRONG)))
def test_a_url_that_cannot_be_used_is_refused_with_the_way_out(url: object) -> None:
    with pytest.raises(InvalidSetting) as caught:
        check_url(url)
    assert "postgresql://user:password@host:5432/database" in told(caught.value)
    with pytest.raises(InvalidSetting):
        PostgresJournal(url)  # type: ignore[arg-type]


def test_a_url_for_listening_is_checked_too() -> None:
    with pytest.raises(InvalidSetting, match="mysql"):
        PostgresJournal("postgresql://host/db", listen_url="mysql://bob:hunter2@host/db")


HIDDEN = {
    "postgresql://bob:hunter2@host:5432/db": "postgresql://bob:***@host:5432/db",
    "postgresql://bob:hunter2@/s3cret@host/db": "postgresql://bob:***@host/db",
    "postgresql://bob:hunter2%40s3cret@host/db": "postgresql://bob:***@host/db",
    "postgresql://bob:hunter2[s3cret@host/db": "postgresql://bob:***@host/db",
    "postgresql://bob:hunter2\ns3cret@host/db": "postgresql://bob:***@host/db",
    "postgresql://host/db?user=bob&password=hunter2%26s3cret&sslmode=disable": (
        "postgresql://host/db?user=bob&password=***&sslmode=disable"
    ),
    "host=h user=bob password=hunter2": "host=h user=bob password=***",
    "password='hunter2 s3cret' host=h": "password=*** host=h",
    "host=h password='hunter2\\'s3cret'": "host=h password=***",
    "host=h sslpassword=hunter2": "host=h sslpassword=***",
    "postgresql://bob@host:5432/db": "postgresql://bob@host:5432/db",
    "postgresql:///db?host=/run/pg": "postgresql:///db?host=/run/pg",
    "postgresql://[::1]:5432/db": "postgresql://[::1]:5432/db",
}


@pytest.mark.parametrize("url", HIDDEN, ids=range(len(HIDDEN)))
def test_a_url_is_shown_without_its_password(url: str) -> None:
    assert check_url(url) == url
    assert shown(url) == HIDDEN[url]


def test_a_url_with_two_at_signs_is_refused_and_shown_without_its_password() -> None:
    """libpq would read "hunter2@host" as a port, and say so."""
    url = "postgresql://bob@corp:hunter2@host/db"
    assert shown(url) == "postgresql://bob@corp:***@host/db"
    with pytest.raises(InvalidSetting, match="%40"):
        check_url(url)
    assert (
        check_url("postgresql://bob%40corp:hunter2@host/db@home") == "postgresql://bob%40corp:hunter2@host/db@home"
    )


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def refusal(url: str) -> str:
    with pytest.raises(DatabaseUnreachable) as caught:
        await PostgresJournal(url).prepare()
    with pytest.raises(DatabaseUnreachable):
        async with PostgresJournal(url).open(migrating=False):
            pass
    text = told(caught.value)
    assert "CONTINUUM_DATABASE_URL" in text
    return text


async def test_a_port_where_nobody_listens(silent_port: int) -> None:
    text = await refusal(f"postgresql://bob:hunter2@127.0.0.1:{silent_port}/db")
    assert f"127.0.0.1:{silent_port}" in text
    assert "refused" in text


async def test_a_host_that_is_none() -> None:
    assert "nowhere.invalid" in await refusal("postgresql://bob:hunter2@nowhere.invalid/db")


async def test_a_socket_that_is_not_there() -> None:
    assert "/nowhere" in await refusal("host=/nowhere user=bob password=hunter2 dbname=db")


async def test_a_password_that_is_read_as_a_port() -> None:
    await refusal("postgresql://bob:s3cret/hunter2@127.0.0.1/db")


async def test_a_database_that_does_not_exist(database: str) -> None:
    assert "does not exist" in await refusal(make_conninfo(database, dbname="nothing", password="hunter2"))


async def test_a_user_that_may_not_come_in(database: str) -> None:
    assert "nobody" in await refusal(make_conninfo(database, user="nobody", password="hunter2"))


async def test_a_server_that_is_no_postgres() -> None:
    async def hang_up(reader: object, writer: object) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[attr-defined]
        writer.close()  # type: ignore[attr-defined]

    import asyncio

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        await refusal(f"postgresql://bob:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}/db")


async def test_a_full_server_is_unreachable(database: str) -> None:
    name = database.split("dbname=")[1].split()[0]
    select(database, f"create role {name}_one login connection limit 0")
    try:
        await refusal(make_conninfo(database, user=f"{name}_one", password="hunter2"))
    finally:
        select(database, f"drop role {name}_one")


async def test_a_connection_says_who_it_is_and_takes_what_the_url_says(database: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        connection = await connect(database, name="journal")
        stack.push_async_callback(connection.close)
        given = await connect(make_conninfo(database, application_name="mine"), name="journal")
        stack.push_async_callback(given.close)
        for found, name in ((connection, "continuum journal"), (given, "mine")):
            rows = await (await found.execute("select current_setting('application_name')")).fetchall()
            assert rows == [(name,)]
