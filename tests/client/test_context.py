"""What a run is labelled with at its start: attributes and a traceparent, kept, described and inherited."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from opentelemetry import context as contexts
from opentelemetry import trace

from continuum import Client, EncodeError, InvalidSetting, SyncClient
from continuum._tracing import checked_traceparent, current_traceparent
from tests.client.flows import Order, audit_flow, order_flow
from tests.journal.harness import select

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LABELS = "select attributes, trace from continuum.runs where run_id = %s"


@pytest.fixture
def span() -> Iterator[str]:
    """A span of OpenTelemetry's that is the current one; its traceparent."""
    ids = trace.SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=trace.TraceFlags(1))
    token = contexts.attach(trace.set_span_in_context(trace.NonRecordingSpan(ids)))
    yield f"00-{0xA1:032x}-{0xB2:016x}-01"
    contexts.detach(token)


async def test_attributes_and_a_traceparent_are_kept_and_described(client: Client, database: str) -> None:
    given = {"tenant": "t1", "tags": ["a", {"b": None}]}
    run = await client.start(audit_flow, id="r", attributes=given, traceparent=TRACE)
    assert select(database, LABELS, "r") == [(given, TRACE)]
    found = await run.describe()
    assert (found.attributes, found.traceparent) == (given, TRACE)
    plain = await (await client.start(audit_flow, id="plain")).describe()
    assert (plain.attributes, plain.traceparent) == ({}, None)


def test_sync_code_gives_them_too(sync: SyncClient, database: str, span: str) -> None:
    sync.start(audit_flow, id="r", attributes={"tenant": "t1"})
    assert select(database, LABELS, "r") == [({"tenant": "t1"}, span)], "the span of the calling thread"
    sync.start(audit_flow, id="s", traceparent=TRACE)
    assert select(database, LABELS, "s") == [(None, TRACE)], "what is given goes before the current span"


async def test_in_a_callers_transaction_they_are_the_same(client: Client, database: str, span: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await client.start(audit_flow, id="r", attributes={"tenant": "t1"}, connection=connection)
    assert select(database, LABELS, "r") == [({"tenant": "t1"}, span)]


def test_sync_code_gives_them_in_its_transaction(sync: SyncClient, database: str, span: str) -> None:
    with psycopg.connect(database) as connection:
        sync.start(audit_flow, id="r", attributes={"tenant": "t1"}, connection=connection)
    assert select(database, LABELS, "r") == [({"tenant": "t1"}, span)]


async def test_the_current_span_is_taken_if_none_is_given(client: Client, database: str, span: str) -> None:
    await client.start(order_flow, Order("o1"), id="r")
    assert select(database, LABELS, "r") == [(None, span)]


def test_an_application_without_opentelemetry_is_not_made_to_import_it(
    monkeypatch: pytest.MonkeyPatch, span: str
) -> None:
    assert current_traceparent() == span
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert current_traceparent() is None
    assert "opentelemetry.trace" not in sys.modules


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ("tenant", TypeError),
        ([("tenant", 1)], TypeError),
        ({"when": object()}, EncodeError),
        ({"nul": "a\0b"}, EncodeError),
        ({"n": float("nan")}, EncodeError),
    ],
)
async def test_attributes_that_are_no_plain_json_are_refused_and_nothing_is_written(
    client: Client, database: str, attributes: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="attributes"):
        await client.start(audit_flow, attributes=attributes)
    assert select(database, "select run_id from continuum.runs") == []


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "here",
        TRACE.upper(),
        TRACE[:-1],
        f"{TRACE}\n",
        f"01{TRACE[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
async def test_a_traceparent_of_another_form_is_refused_with_the_form(
    client: Client, database: str, bad: str
) -> None:
    with pytest.raises(InvalidSetting, match="00-<32 hex digits>-<16 hex digits>-<2 hex digits>"):
        await client.start(audit_flow, traceparent=bad)
    assert select(database, "select run_id from continuum.runs") == []


def test_a_traceparent_is_text() -> None:
    with pytest.raises(TypeError, match="traceparent is a str of the form 00-"):
        checked_traceparent(7)


async def test_started_again_a_run_keeps_the_labels_that_it_has(client: Client, database: str) -> None:
    await client.start(audit_flow, id="r", attributes={"n": 1}, traceparent=TRACE)
    await client.start(audit_flow, id="r", attributes={"n": 2})
    assert select(database, LABELS, "r") == [({"n": 1}, TRACE)]
