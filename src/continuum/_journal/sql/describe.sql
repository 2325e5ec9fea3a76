-- Reads runs as people see them. Locks nothing.
select r.run_id, r.workflow, r.version, o.state, r.generation, r.depth, o.parent_run_id, r.namespace, r.lease_owner,
  r.waiting_for, r.created_at, r.started_at, r.completed_at, r.next_wakeup_at, r.input, r.result, r.error, r.published,
  r.attributes
from {schema}.runs r join {schema}.overview o using (run_id) where r.run_id = any(:run_ids::text[])
