-- oldest release that can work beside it: 1
--
-- The journal's tables. Run ids compare byte by byte (collate "C"), so that a run's descendants are the range of keys
-- from 'id/' to 'id0' and no index on parents is needed. A parent's id is all before the last '/', a root's all before
-- the first: neither is a column. Values are json, not jsonb: cheaper to insert, and they keep their text.

create table {schema}.runs (
  run_id         text collate "C" primary key,
  lease_token    bigint not null default 0,            -- rises with every owner; a write with an older one is void
  created_at     timestamptz not null default now(),
  started_at     timestamptz,                          -- first claim: the time of the first generation's first event
  completed_at   timestamptz,
  next_wakeup_at timestamptz,                          -- of an unleased run: when to claim it
  generation     integer not null default 1 check (generation >= 1),
  version        integer not null,
  depth          smallint not null default 0 check (depth >= 0),
  deaths         smallint not null default 0,          -- workers that died with this run named as the suspect
  priority       smallint not null default 0 check (priority between 0 and 1000),
  suspected      boolean not null default false,       -- it was with a worker that died: to be replayed alone
  workflow       text collate "C" not null,
  state          text collate "C" not null default 'pending'
                 check (state in ('pending', 'running', 'suspended', 'parked', 'completed', 'failed', 'cancelled')),
  lease_owner    text collate "C",
  namespace      text collate "C" not null default 'default',
  on_parent_close text check (on_parent_close in ('abandon', 'cancel')),
  waiting_for    text,                                 -- as of the last passivation
  trace          text,                                 -- W3C traceparent, inherited by children
  input          json not null,                        -- of the first generation; a later one's is its entry 0
  result         json,
  error          json,
  published      json,
  retry          json,
  attributes     jsonb,
  check ((state in ('completed', 'failed', 'cancelled')) = (completed_at is not null)),
  check (lease_owner is null or state = 'running')
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- What is due. A run that is leased, ended or parked is in neither of the first two indexes or has no wake-up time.
create index runs_ready on {schema}.runs (workflow, version, next_wakeup_at)
  where lease_owner is null and next_wakeup_at is not null;
create index runs_leased on {schema}.runs (lease_owner) where lease_owner is not null;
create index runs_roots on {schema}.runs (created_at, run_id) where depth = 0;
create index runs_troubled on {schema}.runs (created_at, run_id) where state in ('failed', 'parked');

create table {schema}.events (
  run_id     text collate "C" not null,
  at_us      bigint not null,                          -- microseconds since 1970 UTC, stamped by the worker
  generation integer not null,
  seq        integer not null,                         -- from 1; 0 is how a generation after the first began
  type       text collate "C" not null,
  key        text collate "C" not null,
  payload    json,                                     -- null: a child's result too large to be kept twice
  primary key (run_id, generation, seq)
) with (autovacuum_vacuum_insert_scale_factor = 0.05);

create table {schema}.inbox (
  run_id  text collate "C" not null,
  id      bigint generated always as identity,         -- not in order of commit: never remember "the last one read"
  generation integer,                                  -- the only one it is for; null: whichever reads it
  type    text collate "C" not null,
  key     text collate "C" not null,
  payload json,
  primary key (run_id, id)
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

create table {schema}.workers (
  worker_id      text collate "C" primary key,
  lease_s        double precision not null check (lease_s > 0),
  started_at     timestamptz not null default now(),
  connected_at   timestamptz not null default now(),   -- since when it has not missed a beat
  beat_at        timestamptz not null default now(),
  dead_at        timestamptz,                          -- declared dead: its leases are taken, it may not come back
  suspect_run_id text collate "C",                     -- the one run it is trying alone
  info           json
) with (fillfactor = 50);

create table {schema}.tasks (
  task_id      bigint generated always as identity primary key,
  created_at   timestamptz not null default now(),
  run_at       timestamptz not null default now(),     -- not before
  lease_until  timestamptz,                            -- a running attempt's worker must be heard of until then
  generation   integer not null,
  attempt      integer not null default 0,             -- attempts begun; it is also the attempt's fencing token
  max_attempts integer not null default 1,
  priority     smallint not null default 0 check (priority between 0 and 1000),
  run_id       text collate "C" not null,
  key          text collate "C" not null,
  queue        text collate "C" not null,
  name         text collate "C" not null,
  lease_owner  text collate "C",
  input        json not null,
  options      json,
  details      json,                                   -- what the last heartbeat said, for the next attempt
  unique (run_id, generation, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
create index tasks_ready on {schema}.tasks (queue, run_at) where lease_owner is null;
create index tasks_leased on {schema}.tasks (lease_until) where lease_owner is not null;

create table {schema}.definitions (
  kind         text collate "C" not null check (kind in ('workflow', 'activity')),
  name         text collate "C" not null,
  version      integer not null,
  worker_id    text collate "C" not null,
  announced_at timestamptz not null default now(),
  schemas      json,
  primary key (kind, name, version, worker_id)
);

-- What one worker does for all, now and then: when it was last done, and how far it came.
create table {schema}.chores (
  name   text collate "C" primary key,
  done_at timestamptz not null default '-infinity',
  cursor text collate "C" not null default ''
) with (fillfactor = 50);
insert into {schema}.chores (name) values ('sweep');

-- For people: what stands in a run's row and what follows from it.
create view {schema}.overview as
select r.run_id,
  nullif(left(r.run_id, -position('/' in reverse(r.run_id))), '') as parent_run_id,
  split_part(r.run_id, '/', 1) as root_run_id,
  r.workflow, r.version,
  case when r.completed_at is not null or r.state = 'parked' then r.state
       when r.lease_owner is not null then 'running'
       when r.started_at is null then 'pending'
       else 'suspended' end as state, r.state as stored_state,
  r.generation, r.depth, r.namespace, r.lease_owner as worker, r.waiting_for, r.next_wakeup_at,
  r.created_at, r.started_at, r.completed_at, r.input, r.result, r.error, r.published, r.attributes
from {schema}.runs r;
