"""The guard at run time: what it lets pass, in a turn and outside of one."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import pathlib
import random
import socket
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import pydantic
import pytest
from tests.core.guards.turns import Function, Turn, apply, apply_to, drive

from continuum._core.guards import Watch
from continuum._core.guards.watch import LOOKS
from continuum.errors import NotDeterministic


def clock() -> float:
    return time.time()


def clock_two_calls_deep() -> float:
    return clock()


def dice() -> int:
    return random.choice([1, 2])


def identifier() -> uuid.UUID:
    return uuid.uuid4()


def variable() -> str | None:
    return os.getenv("HOME")


def harmless(number: int = 1) -> int:
    return number + 1


class Model(pydantic.BaseModel):
    at: datetime
    stamp: float = pydantic.Field(default_factory=time.time)
    id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)

    @pydantic.field_validator("at")
    @classmethod
    def in_the_past(cls, at: datetime) -> datetime:
        assert at < datetime.now(UTC)
        return at


def validates() -> Any:
    adapter = pydantic.TypeAdapter(list[Model])
    value = adapter.validate_json('[{"at": "2020-01-01T00:00:00Z"}]')
    return adapter.dump_json(value), Model(at=datetime(2020, 1, 1, tzinfo=UTC)), Model.model_json_schema()


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{datetime.now(UTC)} {os.getpid()} {record.getMessage()}"


def logs() -> None:
    logger = logging.getLogger("guards")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    logger.addHandler(handler)
    logger.warning("a warning with %s", "an argument", exc_info=True)
    logger.removeHandler(handler)
    print("printed")


def formats_a_traceback() -> str:
    try:
        raise ValueError("an error")
    except ValueError:
        return traceback.format_exc()


def waits() -> Any:
    sleeping = asyncio.sleep(0)
    sleeping.close()
    return (
        datetime(2020, 1, 1),
        datetime.fromisoformat("2020-01-01"),
        random.Random(3).choice([1]),
        date(2020, 1, 1),
    )


def random_with_seed_in_stars() -> Any:
    return random.Random(*[3]).random(), random.Random(x=3)


def uses_names_that_look_forbidden() -> Any:
    class Thing:
        def get(self, key: str) -> str:
            return key

        now = start = submit = choice = get

    def get(environ: Any, default: str = "") -> str:
        return default

    thing = Thing()
    return thing.now("a"), thing.start("b"), thing.submit("c"), thing.choice("d"), get(os.environ)


def passes_a_forbidden_object_on() -> str:
    return repr(time.time) + repr(socket.socket) + str(os.environ.__class__)


@pytest.mark.parametrize(
    "helper",
    [
        validates,
        logs,
        formats_a_traceback,
        waits,
        random_with_seed_in_stars,
        uses_names_that_look_forbidden,
        passes_a_forbidden_object_on,
    ],
)
def test_watch_does_not_misfire(turn: Turn, helper: Function) -> None:
    turn.run(apply, helper)
    turn.run(apply, helper)


def test_importing_a_module_in_a_turn_is_not_the_workflows_call(
    turn: Turn, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"fresh_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import os, time, uuid\n"
        "def load():\n    return os.environ.get('HOME'), time.time(), uuid.uuid4()\n"
        "LOADED = load()\n"
        "with open(__file__) as source:\n    TEXT = source.read()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = turn.run(apply_to, importlib.import_module, name)
    assert module.TEXT
    with pytest.raises(NotDeterministic):
        turn.run(apply, module.load)


def test_code_in_site_packages_is_trusted_unless_a_workflow_lives_there(
    turn: Turn, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / f"installed_{tmp_path.name.replace('-', '_')}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "stamps.py").write_text("import time\ndef stamp():\n    return time.time()\n")
    (package / "flows.py").write_text("async def flow():\n    pass\n")
    monkeypatch.syspath_prepend(str(package.parent))
    stamp = importlib.import_module(f"{package.name}.stamps").stamp
    turn.run(apply, stamp)
    turn.watch.register(importlib.import_module(f"{package.name}.flows").flow)
    with pytest.raises(NotDeterministic):
        turn.run(apply, stamp)


def test_nothing_is_refused_outside_a_turn(turn: Turn) -> None:
    async def workflow() -> Any:
        return clock(), dice(), identifier(), variable(), harmless()

    turn.watch.register(workflow)
    for _ in range(LOOKS + 5):
        drive(workflow)
    with pytest.raises(NotDeterministic):
        turn.run(workflow)


def test_call_of_user_code_seen_outside_turns_only_is_followed_when_a_turn_comes(turn: Turn) -> None:
    async def workflow() -> float:
        return clock_two_calls_deep()

    turn.watch.register(workflow)
    for _ in range(LOOKS + 5):
        drive(workflow)
    with pytest.raises(NotDeterministic):
        turn.run(workflow)


def test_what_runs_outside_turns_only_is_not_followed(turn: Turn) -> None:
    async def workflow(further: bool) -> int:
        return harmless() if further else 0

    turn.run(workflow, False)
    drive(workflow, True)
    asked = turn.asked
    drive(workflow, True)
    assert turn.asked - asked <= 1  # the call of harmless, and nothing inside it


def test_another_thread_is_outside_the_turn(turn: Turn) -> None:
    here = threading.get_ident()
    watch = Watch(lambda: turn.on and threading.get_ident() == here)
    watch.register(apply)
    turn.on = True
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(drive, apply, clock).result() > 0
    turn.on = False
    watch.close()


def test_everything_passes_while_suspended(turn: Turn) -> None:
    def side_effect(function: Function) -> Any:
        with turn.watch.suspended():
            with turn.watch.suspended():
                pass
            return function()

    async def workflow() -> tuple[float, int]:
        return side_effect(clock), side_effect(dice)

    async def then_not() -> float:
        side_effect(clock)
        return clock()

    turn.run(workflow)
    with pytest.raises(NotDeterministic):
        turn.run(then_not)
