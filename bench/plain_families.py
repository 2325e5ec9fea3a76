"""The yardstick of children: the same start, end and inbox work as plain fenced statements, in the plain schema.

The rule: as lean as it can be while it is still safe against a second worker. One JSON parameter a table, as many
children a statement as the journal is given, fenced by one locked row of each run that writes; no outcomes but
"written", no look at whether a receiver lives, no future a child. Payloads and ids are as long as the journal's.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.yardstick import PAYLOAD, T0, WORKER
from continuum._journal.connections import Connection, JsonText

TABLES = (
    b"""alter table plain.runs add workflow text collate "C", add due_at timestamptz, add completed_at timestamptz,
  add result json""",
    b"create index runs_due on plain.runs (workflow, due_at) where lease_owner is null and due_at is not null",
    b"""create table plain.inbox (
  run_id text collate "C" not null, id bigint generated always as identity,
  type text collate "C" not null, key text collate "C" not null, payload json,
  primary key (run_id, id)) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off)""",  # as the journal's
)
_PARENT = b"insert into plain.runs (run_id, lease_owner, lease_token, workflow) values ($1, $2, 1, 'parent')"
# What is fenced: the own rows of parameter 1 that this worker, parameter 2, still holds, locked.
_FENCED = b"""
with i as materialized (select * from json_to_recordset($1::json) x(r text, tok bigint, res json)),
ok as materialized (
  select run_id, lease_token, res from plain.runs join i on run_id = i.r and lease_token = i.tok
  where lease_owner = $2 order by run_id for no key update of runs),"""
_ENTRIES = b"""
ev as (
  insert into plain.events (run_id, generation, seq, at_us, type, key, payload)
  select r, g, s, a, t, k, p from json_to_recordset($4::json)
    x(r text, g int, s int, a bigint, t text, k text, p json) join ok on ok.run_id = r returning 1)
select least((select count(*) from other), (select count(*) from ev))"""
_START = (
    _FENCED
    + b"""
other as (
  insert into plain.runs (run_id, workflow, state, lease_owner, lease_token, due_at, input)
  select id, 'leaf', case when mine then 'running' else 'pending' end, case when mine then $2 end, mine::int,
    case when not mine then now() end, inp
  from json_to_recordset($3::json) x(r text, id text, mine bool, inp json) join ok on ok.run_id = r
  returning 1),"""
    + _ENTRIES
)
_END = (
    _FENCED
    + b"""
up as (
  update plain.runs u set state = 'completed', result = ok.res, lease_owner = null, completed_at = now()
  from ok where u.run_id = ok.run_id returning 1),
msg as (
  insert into plain.inbox (run_id, type, key, payload)
  select "to", t, k, p from json_to_recordset($3::json) x(r text, "to" text, t text, k text, p json)
    join ok on ok.run_id = r returning 1)
select least((select count(*) from up), (select count(*) from msg))"""
)
_CLAIM = b"""
update plain.runs set lease_owner = $1, lease_token = lease_token + 1, state = 'running', due_at = null
where run_id = any(array(
  select run_id from plain.runs where workflow = 'leaf' and lease_owner is null and due_at <= now()
  order by due_at limit $2 for update skip locked))
returning run_id, lease_token, input"""
_MAIL = b"select id, type, key, payload from plain.inbox where run_id = $1 order by id limit $2"
_DRAIN = (
    _FENCED
    + b"""
other as (
  delete from plain.inbox where run_id = any(array(select run_id from ok))
    and id = any(array(select id from json_to_recordset($3::json) x(id bigint))) returning 1),"""
    + _ENTRIES
)
_ENTRY = b'{"r":"%b","g":1,"s":%d,"a":%d,"t":"%b","k":"%b","p":%b}'
Held = tuple[str, int]  # a run and its token
PlainMail = tuple[int, str, str, bytes]


class PlainFamily:
    """One parent and its children. Every step is one statement, and durable when it returns."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self._connection = connection
        self._run_id = run_id
        self._own = b'[{"r":"%b","tok":1}]' % run_id.encode()

    async def prepare(self) -> None:
        """Insert the parent, leased."""
        await self._connection.execute(_PARENT, [self._run_id, WORKER])

    async def start(self, seq: int, keys: Sequence[str], at_birth: bool) -> list[Held]:
        """Insert the children's rows and the parent's entries; return the leases, if they are leased at birth."""
        parent = self._run_id.encode()
        mine = b"true" if at_birth else b"false"
        children = [
            b'{"r":"%b","id":"%b/%b","mine":%b,"inp":%b}' % (parent, parent, key.encode(), mine, PAYLOAD)
            for key in keys
        ]
        payload = b'{"input":%b}' % PAYLOAD
        entries = [
            _ENTRY % (parent, seq + at, T0, b"child_started", key.encode(), payload) for at, key in enumerate(keys)
        ]
        await self._write(_START, len(keys), self._own, _array(children), _array(entries))
        return [(f"{self._run_id}/{key}", 1) for key in keys] if at_birth else []

    async def claim(self, limit: int) -> list[Held]:
        """Lease children that are due."""
        found = await self._connection.execute(_CLAIM, [WORKER, limit])
        return [(row[0], row[1]) for row in await found.fetchall()]

    async def end(self, held: Sequence[Held]) -> None:
        """Complete the children and tell their parent."""
        own, messages = [], []
        payload = b'{"result":%b}' % PAYLOAD
        for run_id, token in held:
            parent, _, key = run_id.encode().rpartition(b"/")
            own.append(b'{"r":"%b","tok":%d,"res":%b}' % (run_id.encode(), token, PAYLOAD))
            messages.append(
                b'{"r":"%b","to":"%b","t":"child_completed","k":"%b","p":%b}'
                % (run_id.encode(), parent, key, payload)
            )
        await self._write(_END, len(held), _array(own), _array(messages))

    async def mail(self, limit: int) -> list[PlainMail]:
        """Read the parent's inbox."""
        found = await self._connection.execute(_MAIL, [self._run_id, limit])
        return [(row[0], row[1], row[2], row[3]) for row in await found.fetchall()]

    async def drain(self, seq: int, mail: Sequence[PlainMail]) -> None:
        """Delete the messages and insert the parent's entries."""
        parent = self._run_id.encode()
        gone = [b'{"id":%d}' % id_ for id_, *_ in mail]
        entries = [
            _ENTRY % (parent, seq + at, T0, kind.encode(), key.encode(), payload)
            for at, (_, kind, key, payload) in enumerate(mail)
        ]
        await self._write(_DRAIN, len(mail), self._own, _array(gone), _array(entries))

    async def _write(self, sql: bytes, rows: int, own: bytes, *tables: bytes) -> None:
        cursor = await self._connection.execute(sql, [JsonText(own), WORKER, *map(JsonText, tables)])
        written = await cursor.fetchone()
        assert written == (rows,), written  # none is ever fenced here


def _array(rows: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(rows)
