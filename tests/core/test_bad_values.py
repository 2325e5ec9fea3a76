"""Values and ids that cannot be: refused at the call, with the field's path and the way out."""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field
from tests.core.harness import Run

from continuum import EncodeError, InvalidId, activity, child, start_child, workflow
from continuum._core.codec import ANY, MAX_VALUE_BYTES, Codec
from continuum._core.keys import MAX_RUN_ID_BYTES, check_child_key, check_root_id


@dataclass
class Line:
    name: str
    cents: int = 0
    weight: float = 0.0


@dataclass
class Order:
    id: str
    lines: list[Line]
    notes: dict[str, str] | None = None


class Positive(BaseModel):
    cents: int = Field(gt=0)


ORDER: Codec[Order] = Codec(Order, "input of workflow 'order'")
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        (Order("o1", [Line("a"), Line("b", weight=NAN)]), "lines[1].weight", "nan"),
        (Order("o1", [Line("a", weight=-INF)]), "lines[0].weight", "-inf"),
        (Order("o\0", []), "id", "NUL"),
        (Order("o1", [Line("\ud800")]), "lines[0].name", "surrogate"),
        (Order("o1", [], {"key": "a\0b"}), "notes.key", "NUL"),
        (Order("o1", [], {"a\0b": "value"}), "notes", "NUL"),
        (Order("o1", [Line("a", "12")]), "lines[0].cents", "integer"),  # type: ignore[arg-type]
        (Order("o1", [Line("a"), "b"]), "lines[1]", "got 'b'"),  # type: ignore[list-item]
        (Order(5, []), "id", "string"),  # type: ignore[arg-type]
        (Order("o1", None), "lines", "array"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_does_not_fit_is_refused_with_the_path_of_its_field(
    value: Any, field: str, problem: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        ORDER.encode(value)
    error = caught.value
    assert isinstance(error, TypeError)
    assert (error.what, error.field) == ("input of workflow 'order'", field)
    assert problem in error.problem
    assert str(error).startswith(f"input of workflow 'order' at {field}: ")


@pytest.mark.parametrize(
    "value", [5, "o1", None, object(), [], {"id": "o1"}], ids=lambda value: type(value).__name__
)
def test_another_type_altogether_is_refused(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        ORDER.encode(value)
    assert caught.value.what == "input of workflow 'order'"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": [1, {"b": NAN}]}, "a[1].b"),
        ([None, "x\0"], "[1]"),
        ({"a": {"b": ["\udfff"]}}, "a.b[0]"),
        (NAN, ""),
        ("\0", ""),
        ({"a": object()}, "a"),
        ([{1, 2}, object()], "[1]"),
    ],
    ids=["deep", "list", "surrogate", "bare NaN", "bare NUL", "object", "object beside a set"],
)
def test_plain_values_are_searched_to_the_bottom(value: Any, field: str) -> None:
    with pytest.raises(EncodeError) as caught:
        ANY.encode(value)
    assert caught.value.field == field


def test_none_beside_a_value_is_no_nan() -> None:
    assert ANY.encode({"a": None, "b": [1.5]}) == b'{"a":null,"b":[1.5]}'


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodeError):
        ANY.encode(value)


def test_a_constraint_of_the_type_is_kept_at_the_boundary() -> None:
    value = Positive.model_construct(cents=-5)
    with pytest.raises(EncodeError, match=r"at cents: .*greater than 0"):
        Codec(Positive, "input").encode(value)


def test_a_value_beyond_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(EncodeError, match=r"67,108,866 bytes .* pass a reference"):
        ANY.encode("x" * MAX_VALUE_BYTES)


def test_text_with_an_escaped_backslash_is_no_nul() -> None:
    assert ANY.decode(ANY.encode("\\u0000")) == "\\u0000"


# At the calls.


@activity
async def charge(order: Order, rate: float = 1.0) -> str:
    return order.id


@workflow
async def ship(order: Order) -> str:
    return order.id


@pytest.mark.parametrize(
    ("call", "what", "field"),
    [
        (lambda: charge(Order("o1", []), NAN), "arguments of activity 'charge'", "rate"),
        (lambda: charge("o1"), "arguments of activity 'charge'", "order"),
        (lambda: start_child(ship, "o1"), "input of workflow 'ship'", ""),
        (lambda: child(ship, Order("\0", [])), "input of workflow 'ship'", "id"),
        (lambda: start_child(ship), "input of workflow 'ship'", ""),
        (lambda: start_child(ship, Order("o1", []), id="x").signal("go", NAN), "value", ""),
    ],
    ids=["activity field", "activity type", "child type", "child field", "child without input", "signal"],
)
def test_a_call_with_a_value_that_does_not_fit_raises_at_once(call: Any, what: str, field: str) -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            call()
        except EncodeError as error:
            return [error.what, error.field]
        return []

    assert Run(flow).result == [what, field]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: charge(), "missing 1 required positional argument: 'order'"),
        (lambda: charge(Order("o1", []), rte=2.0), "'rte'"),
        (lambda: charge(1, 2, 3), "takes from 1 to 2 positional arguments"),
    ],
    ids=["missing", "unknown", "too many"],
)
def test_a_call_with_other_arguments_than_the_activity_has_names_the_activity(call: Any, says: str) -> None:
    @workflow
    async def flow() -> None:
        call()

    failure = Run(flow).failure
    assert failure.type == "TypeError"
    assert "activity 'charge'" in failure.message
    assert says in failure.message


@pytest.mark.parametrize("option", ["time_out", "on_parent_clse", "retries"])
def test_an_unknown_option_of_a_child_is_told_with_its_nearest_name(option: str) -> None:
    """SV09: unknown options raise."""

    @workflow
    async def flow(how: str) -> list[str]:
        told = []
        for start in (start_child, child):
            try:
                start(ship, Order("o1", []), id=how, **{option: 1})
            except TypeError as error:
                told.append(str(error))
        return told

    told = Run(flow, "x").result
    assert len(told) == 2
    assert all(repr(option) in text and "did you mean" in text for text in told)


# Ids.


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "empty"),
        ("a/b", "'/'"),
        ("a\nb", "'\\n'"),
        ("a\0b", "'\\x00'"),
        ("a\x7fb", "'\\x7f'"),
        ("\ud800", "'\\ud800'"),
        ("x" * 81, "80 bytes"),
        ("ä" * 41, "80 bytes"),
    ],
    ids=["empty", "slash", "newline", "NUL", "DEL", "surrogate", "81 bytes", "82 bytes in 41 letters"],
)
def test_an_id_that_cannot_be_used_is_refused_by_name(key: str, says: str) -> None:
    """CH16: '/' and control characters are refused, keys have at most 80 bytes."""

    @workflow
    async def flow() -> list[str]:
        try:
            start_child(ship, Order("o1", []), id=key)
        except ValueError as error:
            return [type(error).__name__, str(error)]
        return []

    kind, message = Run(flow).result
    assert kind == "InvalidId"
    assert "child id" in message
    assert says in message


@pytest.mark.parametrize("key", [5, b"x", object, ["x"]])
def test_an_id_that_is_no_text_is_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match="a child id is a str"):
        check_child_key(key)


@pytest.mark.parametrize("key", ["x" * 80, "ä" * 40, "order 7", "a.b:c-d_e", "größe", "t1.x-1"])
def test_an_id_may_be_any_printable_text_of_80_bytes(key: str) -> None:
    assert check_child_key(key) == key


def test_a_run_id_may_be_longer_and_a_path_to_a_child_is_bounded_as_a_whole() -> None:
    assert check_root_id("r" * MAX_RUN_ID_BYTES)
    with pytest.raises(InvalidId, match="run id"):
        check_root_id("r" * (MAX_RUN_ID_BYTES + 1))

    @workflow
    async def flow() -> None:
        start_child(ship, Order("o1", []), id="leaf")

    failure = Run(flow, id="r" * 896).failure
    assert failure.type == "InvalidId"
    assert "900 bytes" in failure.message
    assert Run(flow, id="r" * 895).fault is None


def test_a_derived_key_that_grows_too_long_asks_for_an_id() -> None:
    @workflow(name="w" * 79)
    async def long_name() -> None: ...

    @workflow
    async def flow() -> None:
        start_child(long_name)

    failure = Run(flow).failure
    assert failure.type == "InvalidId"
    assert "id=" in failure.message
