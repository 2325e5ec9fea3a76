"""What a worker is told of a run that it claims: where it belongs, and what it was started with."""

from __future__ import annotations

import json

from continuum._journal.commit import Claimed, Lease
from tests.conformance.harness import World
from tests.journal.harness import begin, child, claim, root, turn, write

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def belongs(run: Claimed) -> tuple[str, object, str | None]:
    return run.namespace, None if run.attributes is None else json.loads(run.attributes), run.trace


async def test_a_claim_tells_namespace_attributes_and_trace(world: World) -> None:
    """CH10 who claims or reclaims a run is told what it inherited; people see it too."""
    async with world.journal() as journal:
        given = root("r", namespace="shop", attributes=b'{"a":1}', trace=TRACE)
        (run, plain) = await begin(journal, given, root("plain"))
        assert belongs(run) == ("shop", {"a": 1}, TRACE)
        assert belongs(plain) == ("default", None, None)
        await write(journal, turn(run, children=(child("r", "k", attributes={"b": [2]}),)))
        (kid,) = (await claim(journal)).values()
        assert belongs(kid) == ("shop", {"a": 1, "b": [2]}, TRACE)
        (again,) = await journal.reclaim([Lease("r/k", kid.token)])
        assert again == kid._replace(token=kid.token + 1)
        row = await journal.describe("r/k")
        assert row is not None
        assert row.trace == TRACE
