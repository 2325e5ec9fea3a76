"""The yardstick: a plain fenced group commit on psycopg, in tables of its own.

The rule: as lean as it can be while it is still safe against a second worker. One kind of row, one statement, no
messages, no children, no outcomes but "written"; text ids and the same columns as the journal, so that the bytes
are the same.
"""

from __future__ import annotations

import asyncio

from continuum._journal.connections import Connection, JsonText

NAME = "yardstick"
TABLES = (
    b"create schema plain",
    b"""create table plain.runs (
  run_id text collate "C" primary key, lease_owner text collate "C", lease_token bigint not null default 0,
  state text collate "C" not null default 'running', input json) with (fillfactor = 70)""",
    b"""create table plain.events (
  run_id text collate "C" not null, at_us bigint not null, generation integer not null, seq integer not null,
  type text collate "C" not null, key text collate "C" not null, payload json,
  primary key (run_id, generation, seq))""",
)
_WRITE = b"""
with i as materialized (
  select * from json_to_recordset($1::json) x(r text, tok bigint, g int, s int, a bigint, t text, k text, p json)),
ok as materialized (
  select run_id, lease_token from plain.runs
  where run_id = any(array(select r from i)) and lease_owner = $2 for no key update),
w as (
  insert into plain.events (run_id, generation, seq, at_us, type, key, payload)
  select r, g, s, a, t, k, p from i join ok on ok.run_id = i.r and ok.lease_token = i.tok returning 1)
select count(*) from w"""
MOST_ROWS = 500


class GroupCommit:
    """While one batch is on its way the next gathers."""

    def __init__(self, connection: Connection, worker: str) -> None:
        self._connection = connection
        self._worker = worker
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._some = asyncio.Event()

    def append(
        self, run_id: str, token: int, seq: int, at_us: int, kind: str, key: str, payload: bytes
    ) -> asyncio.Future[None]:
        """Hand in one row; the future is done when it is durable."""
        row = b'{"r":"%b","tok":%d,"g":1,"s":%d,"a":%d,"t":"%b","k":"%b","p":%b}' % (
            run_id.encode(),
            token,
            seq,
            at_us,
            kind.encode(),
            key.encode(),
            payload,
        )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        self._some.set()
        return future

    async def run(self) -> None:
        """Write what is handed in until cancelled. Raises if a row was fenced: here none ever is."""
        while True:
            await self._some.wait()
            batch, self._waiting = self._waiting[:MOST_ROWS], self._waiting[MOST_ROWS:]
            if not self._waiting:
                self._some.clear()
            rows = JsonText(b"[%b]" % b",".join([row for row, _ in batch]))
            cursor = await self._connection.execute(_WRITE, [rows, self._worker])
            written = await cursor.fetchone()
            assert written == (len(batch),)
            for _, future in batch:
                if not future.cancelled():  # who waited for it was told to end
                    future.set_result(None)
