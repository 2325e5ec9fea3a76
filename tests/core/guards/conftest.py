"""One turn for each test, whose watch gives its tool id back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.core.guards.turns import Turn


@pytest.fixture
def turn() -> Iterator[Turn]:
    turn = Turn()
    yield turn
    turn.watch.close()
