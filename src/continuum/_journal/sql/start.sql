-- Inserts root runs; one whose id is taken is left as it is. Locks nothing that exists; if it tells workers ("told"), also
-- the queue of notifications, until the commit is on disk.
with s as materialized (
  select * from json_to_recordset(:runs::json) x(r text, wf text, v int, inp json, ns text, attr jsonb, trace text,
                                                  pri smallint, at bigint)),
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
