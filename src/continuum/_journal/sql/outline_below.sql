-- Reads the runs below one as people see them, in the order of ids, down to a depth, from a place on, without the values
-- that authors gave them: these may be large, and are read from another place of the table. Locks nothing.
select run_id, workflow, version, state, generation, depth, parent_run_id, namespace, worker, waiting_for, created_at,
  started_at, completed_at, next_wakeup_at, 'null'::json as input, null::json as result, error, null::json as published,
  null::jsonb as attributes, trace, c.due_at, c.reason
from {schema}.overview left join (select * from {schema}.cancellations where asks > 0) c using (run_id)
where run_id > greatest(:run_id::text || '/', :after_id::text) and run_id < :run_id || '0' and depth <= :depth
order by run_id limit :limit
