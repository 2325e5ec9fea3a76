"""Definitions that cannot be: one clear error, naming the function and the way out."""

import functools
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from continuum import DefinitionError, Definitions, Retry, activity, workflow
from continuum.policies import ActivityOptions, ChildOptions


def refusal(decorator: Callable[[Any], Any], function: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        decorator(function)
    assert isinstance(caught.value, TypeError)
    return str(caught.value)


# Workflows.


async def yields(number: int) -> AsyncIterator[int]:
    yield number


def generates(number: int) -> Iterator[int]:
    yield number


def sync(number: int) -> int:
    return number


async def takes_two(order: str, cents: int) -> str:
    return order


async def takes_keyword(*, order: str) -> str:
    return order


async def takes_any(*orders: str) -> str:
    return str(orders)


class Class:
    async def run(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (yields, "one result"),
        (generates, "one result"),
        (sync, "async def"),
        (takes_two, "order, cents"),
        (takes_keyword, "one input"),
        (takes_any, "one input"),
        (Class, "async def"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_a_workflow_is_refused_with_the_way_out(function: Any, says: str) -> None:
    message = refusal(workflow, function)
    assert repr(function.__name__) in message
    assert says in message


@pytest.mark.parametrize("thing", [3, "order_flow", functools.partial(sync, 1)], ids=["int", "str", "partial"])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    assert repr(thing) in refusal(workflow, thing)
    assert repr(thing) in refusal(activity, thing)


def test_a_definition_is_not_decorated_twice() -> None:
    assert "flow" in refusal(workflow, workflow(takes_none))


async def takes_none() -> None: ...


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "x" * 81, 3])
def test_a_name_that_cannot_be_used_is_refused(name: Any) -> None:
    for decorator in (workflow(name=name), activity(name=name)):
        message = refusal(decorator, takes_none)
        assert "takes_none" in message
        assert "name=" in message


@pytest.mark.parametrize("name", ["t1.charge", "t12.x", "g2.order"])
def test_a_name_that_looks_like_a_task_path_or_a_generation_is_refused(name: str) -> None:
    """Its keys would be those of another task's ``charge``, or of another generation's."""
    for decorator in (workflow(name=name), activity(name=name)):
        assert repr(name) in refusal(decorator, takes_none)


@pytest.mark.parametrize("version", [0, -1, "2", 1.5, None, True])
def test_a_version_counts_from_one(version: Any) -> None:
    message = refusal(workflow(version=version), takes_none)
    assert "takes_none" in message
    assert repr(version) in message


@pytest.mark.parametrize(("option", "near"), [("verison", "version"), ("Name", "name"), ("signal", "signals")])
def test_an_unknown_option_is_told_with_its_nearest_name(option: str, near: str) -> None:
    """SV09: unknown options raise."""
    with pytest.raises(TypeError) as caught:
        workflow(**{option: 1})
    assert option in str(caught.value)
    assert f"did you mean {near!r}?" in str(caught.value)


def test_an_unknown_option_without_a_near_name_lists_all() -> None:
    with pytest.raises(TypeError, match=r"options are: name, signals, state, updates, version"):
        workflow(zzz=1)  # type: ignore[call-overload]


# Activities.


@pytest.mark.parametrize("function", [yields, generates, Class], ids=lambda value: value.__name__)
def test_what_cannot_be_an_activity_is_refused(function: Any) -> None:
    assert repr(function.__name__) in refusal(activity, function)


def test_an_activity_with_any_number_of_arguments_is_refused() -> None:
    def named(**options: str) -> None: ...

    message = refusal(activity, takes_any)
    assert "'takes_any'" in message
    assert "*orders" in message
    assert "options" in refusal(activity, named)


@pytest.mark.parametrize(
    ("option", "near"), [("retries", "retry"), ("que", "queue"), ("start_to_end", "start_to_close")]
)
def test_an_unknown_option_of_an_activity_is_told_with_its_nearest_name(option: str, near: str) -> None:
    """SV09: unknown options of a definition and of a call raise."""
    for use in (activity, activity(sync).with_options):
        with pytest.raises(TypeError, match=f"did you mean {near!r}"):
            use(**{option: 1})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retry(max_attempts=0), "max_attempts"),
        (lambda: Retry(backoff=0.5), "backoff"),
        (lambda: Retry(jitter=2), "jitter"),
        (lambda: Retry(initial=-1), "Retry.initial"),
        (lambda: Retry(max_interval=float("nan")), "Retry.max_interval"),
        (lambda: Retry(max_interval=float("inf")), "Retry.max_interval"),
        (lambda: ActivityOptions(start_to_close=-1), "start_to_close"),
        (lambda: ChildOptions(on_parent_close="kill"), "'kill'"),
        (lambda: ChildOptions(timeout=-5), "timeout"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


# Annotations.


def test_an_annotation_that_cannot_be_resolved_is_told_at_first_use() -> None:
    async def flow(order: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    definition = workflow(flow)
    with pytest.raises(DefinitionError) as caught:
        definition.prepare()
    message = str(caught.value)
    assert "input of workflow 'flow'" in message
    assert "'Missing'" in message
    assert "TYPE_CHECKING" in message


def test_an_annotation_without_a_json_form_is_told_with_what_to_use() -> None:
    class Socket:
        pass

    @activity
    def send(socket: Socket) -> None: ...

    @workflow
    async def flow() -> Socket:
        return Socket()

    for definition, what in ((send, "arguments of activity 'send'"), (flow, "result of workflow 'flow'")):
        with pytest.raises(DefinitionError) as caught:
            definition.prepare()
        assert what in str(caught.value)
        assert "dataclass" in str(caught.value)


def test_a_signals_type_without_a_json_form_is_told_as_well() -> None:
    class Socket:
        pass

    with pytest.raises(DefinitionError, match="signal 'go' of workflow 'takes_none'"):
        workflow(signals={"go": Socket})(takes_none).prepare()


# Definitions of a worker.


def module(**members: Any) -> types.ModuleType:
    made = types.ModuleType("orders")
    for name, member in members.items():
        if hasattr(member, "function"):
            member.function.__module__ = "orders"
        setattr(made, name, member)
    return made


def flow_named(name: str, version: int = 1) -> Any:
    async def flow() -> None: ...

    return workflow(name=name, version=version)(flow)


def test_a_module_gives_what_it_defines_itself() -> None:
    def ship() -> None: ...

    imported = activity(sync)
    found = Definitions([module(order=flow_named("order"), ship=activity(ship))])
    assert (list(found.workflows), list(found.activities)) == ([("order", 1)], ["ship"])
    mine = module(order=flow_named("order"))
    mine.imported = imported
    assert list(Definitions([mine]).activities) == []


def test_two_definitions_of_one_name_and_version_are_refused() -> None:
    with pytest.raises(ValueError, match=r"workflow 'order' version 1: .*flow_named.* and .*name= or version="):
        Definitions([flow_named("order"), flow_named("order")])
    assert len(Definitions([flow_named("order", 1), flow_named("order", 2)]).workflows) == 2
    with pytest.raises(ValueError, match="activity 'sync'"):
        Definitions([activity(sync), activity(sync)])
    same = flow_named("order")
    assert len(Definitions([same, same]).workflows) == 1


def test_a_module_without_definitions_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'orders' defines no workflow"):
        Definitions([module()])


@pytest.mark.parametrize("source", [sync, takes_none, "orders", None])
def test_what_is_neither_module_nor_definition_is_refused(source: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        Definitions([source])
    assert repr(source) in str(caught.value)


def test_a_workflow_that_is_not_there_is_told_with_the_nearest() -> None:
    found = Definitions([flow_named("order", 2), flow_named("order", 10)])
    assert found.workflow("order").version == 10
    with pytest.raises(LookupError, match="did you mean 'order'"):
        found.workflow("ordre")
    with pytest.raises(LookupError, match=r"no version 3; there are: \[2, 10\]"):
        found.workflow("order", 3)


def test_prepare_finds_the_first_broken_annotation_of_all() -> None:
    def read(folder: object) -> "Missing": ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DefinitionError, match="activity 'read'"):
        Definitions([activity(read)]).prepare()


# As values.


def test_a_definition_is_the_plain_function_outside_a_workflow() -> None:
    """AC09: calling it outside a workflow is a plain call."""
    flow = workflow(takes_none)
    assert activity(sync)(5) == 5
    coroutine = flow()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert flow.__wrapped__ is takes_none
    assert (activity(sync).__wrapped__, repr(flow)) == (sync, "<workflow takes_none version 1>")
