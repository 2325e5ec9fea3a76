-- Inserts root runs; one whose id is taken is left as it is. Locks nothing that exists; if it tells workers ("told"), also
-- the queue of notifications, until the commit is on disk. Waits no longer than a moment if others wait behind it ("wary")
-- for somebody's open transaction that starts a run of the same id.
with
-- if wary
timeout as materialized (select set_config('lock_timeout', '50ms', true)),
-- end
s as materialized (
  select * from json_to_recordset(:runs::json) x(r text, wf text, v int, inp json, ns text, attr jsonb, trace text,
                                                  pri smallint, at bigint)
  -- if wary
  , timeout
  -- end
  ),
new as (
  insert into {schema}.runs (run_id, workflow, version, input, namespace, attributes, trace, priority, next_wakeup_at)
  select r, wf, v, coalesce(inp, 'null'), ns, attr, trace, pri,
    coalesce(timestamptz 'epoch' + at * interval '1 microsecond', now() - pri * interval '1 hour')
  from s order by r on conflict (run_id) do nothing returning run_id)
select run_id
  -- if told
  , (select count(pg_notify(c, p)) from unnest(:channels::text[], :payloads::text[]) x(c, p)) as told
  -- end
from new
