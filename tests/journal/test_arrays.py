"""Columns as arrays: Postgres reads what was rendered, and what no text can hold is refused before."""

from __future__ import annotations

import struct

import psycopg
import pytest

from continuum._journal import arrays
from continuum._journal.arrays import Bigints, Ints, Jsons, Texts, elements
from continuum._journal.connections import adapt


def test_postgres_reads_the_values_that_were_rendered(database: str) -> None:
    names, numbers = ['a"b\\', "", "{é,null}"], [0, -(2**31), 2**31 - 1]
    times, payloads = [0, -(2**63), 2**63 - 1], [b'{"a": 1.50}', b"null", b'"\\\\u0000 \\ud83d\\ude00 \\u0001"']
    with psycopg.connect(database) as connection, psycopg.RawCursor(connection) as cursor:
        adapt(cursor)
        cursor.execute(
            b"select $1::text[], $2::int[], $3::bigint[], $4::json[]::text[], $5::text[]",
            [
                elements(Texts, [arrays.text(name) for name in names]),
                elements(Ints, [arrays.integer(number) for number in numbers]),
                elements(Bigints, [arrays.bigint(time) for time in times]),
                elements(Jsons, [arrays.json(payload) for payload in payloads]),
                elements(Texts, []),
            ],
        )
        assert cursor.fetchone() == (names, numbers, times, [payloads[0].decode(), None, payloads[2].decode()], [])


@pytest.mark.parametrize(
    "payload",
    [b'"\\u0000"', b'{"a":["\\\\\\u0000"]}', b'"\\ud800"', b'"\\ude00\\ud83d"', b'"\\ud83d\\u0041"', b'"\\uDBFF"'],
)
def test_escapes_of_what_no_text_can_hold_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no text holds"):
        arrays.json(payload)


@pytest.mark.parametrize(("render", "value"), [(arrays.integer, 2**31), (arrays.bigint, -(2**63) - 1)])
def test_numbers_that_do_not_fit_are_refused(render: object, value: int) -> None:
    with pytest.raises(struct.error):
        render(value)  # type: ignore[operator]


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeError):
        arrays.text("a\udc80b")
