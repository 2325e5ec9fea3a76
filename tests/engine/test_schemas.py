"""What a worker announces of its definitions: JSON schemas, as far as there are any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator

from continuum import ChildRef, Definitions, Update, activity, workflow
from continuum._engine.engine import announcements
from continuum._engine.schemas import LARGEST, schemas_of


@dataclass
class Order:
    id: str
    cents: int = 0


set_cents = Update("set_cents", int, Order)


@workflow(signals={"approve": bool, "free": Any}, updates=[set_cents], state=list[str])
async def order_flow(order: Order) -> int:
    return order.cents


@activity
async def charge(order_id: str, cents: int) -> str:
    return order_id


@workflow
async def plain(value: Any) -> Any:
    return value


def told(definition: Any) -> Any:
    return json.loads(schemas_of(definition) or b"null")


def test_a_workflow_tells_what_it_takes_gives_answers_and_shows() -> None:
    found = told(order_flow)
    assert found["input"]["properties"]["cents"] == {"default": 0, "title": "Cents", "type": "integer"}
    assert found["result"] == {"type": "integer"}
    assert found["signals"] == {"approve": {"type": "boolean"}, "free": {}}
    assert found["updates"]["set_cents"]["input"] == {"type": "integer"}
    assert found["updates"]["set_cents"]["result"]["title"] == "Order"
    assert found["state"] == {"items": {"type": "string"}, "type": "array"}


def test_an_activity_tells_its_arguments_and_its_result() -> None:
    found = told(charge)
    assert set(found["input"]["properties"]) == {"order_id", "cents"}
    assert found["result"] == {"type": "string"}


def test_what_takes_anything_tells_nothing_of_it() -> None:
    assert told(plain) == {}


def test_types_without_a_schema_are_left_out_and_do_no_harm() -> None:
    @workflow
    async def odd(value: Annotated[object, PlainValidator(lambda value: value)]) -> list[ChildRef[int]]:
        return []

    assert "input" not in told(odd)

    @workflow
    async def not_json(value: Annotated[float, {"x": float("nan")}]) -> int:
        return 1

    assert told(not_json)["result"] == {"type": "integer"}


def test_what_is_too_large_is_not_told() -> None:
    fields: dict[str, Any] = {f"a_field_with_a_long_name_{number}": int for number in range(3_000)}
    many = dataclass(type("Many", (), {"__annotations__": fields}))

    @workflow(signals={"many": many})
    async def huge() -> None: ...

    assert schemas_of(huge) is None
    assert len(schemas_of(order_flow) or b"") < LARGEST


def test_a_worker_announces_them() -> None:
    found = {item.name: item for item in announcements(Definitions([order_flow, charge]))}
    assert found["order_flow"].schemas == schemas_of(order_flow)
    assert found["charge"].schemas == schemas_of(charge)
