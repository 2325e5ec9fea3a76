-- oldest release that can work beside it: 1
--
-- Runs that have until a deadline to end: they were asked to stop, or their parent has ended and left them a timeout. Then
-- any worker cancels them with all below them. A row goes with the cascade that ends its run, or when its time has come
-- and the run has ended by itself.

create table {schema}.cancellations (
  run_id text collate "C" primary key,
  due_at timestamptz not null,                         -- asked again, the earlier one counts
  reason text not null,
  asks   integer not null default 1                    -- how often somebody has asked; 0: its timeout alone
);
create index cancellations_due on {schema}.cancellations (due_at);

-- What may be pruned: trees are found by how long their roots have ended. On a large table build it before, concurrently.
create index if not exists runs_ended on {schema}.runs (completed_at) where depth = 0 and completed_at is not null;

create or replace view {schema}.overview as
select r.run_id,
  nullif(left(r.run_id, -position('/' in reverse(r.run_id))), '') as parent_run_id,
  split_part(r.run_id, '/', 1) as root_run_id,
  r.workflow, r.version,
  case when r.completed_at is not null or r.state = 'parked' then r.state
       when r.lease_owner is not null then 'running'
       when r.started_at is null then 'pending'
       else 'suspended' end as state, r.state as stored_state,
  r.generation, r.depth, r.namespace, r.lease_owner as worker, r.waiting_for, r.next_wakeup_at,
  r.created_at, r.started_at, r.completed_at, r.input, r.result, r.error, r.published, r.attributes, r.trace
from {schema}.runs r;
