-- Reads runs as people see them. Locks nothing.
select run_id, workflow, version, state, generation, depth, parent_run_id, namespace, worker, waiting_for, created_at,
  started_at, completed_at, next_wakeup_at, input, result, error, published, attributes, trace
from {schema}.overview where run_id = any(:run_ids::text[])
