-- Reads runs as people see them. Locks nothing.
select run_id, workflow, version, state, generation, depth, parent_run_id, namespace, worker, waiting_for, created_at,
  started_at, completed_at, next_wakeup_at, input, result, error, published, attributes, trace, c.due_at, c.reason
from {schema}.overview left join (select * from {schema}.cancellations where asks > 0) c using (run_id)
where run_id = any(:run_ids::text[])
